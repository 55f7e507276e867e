//! Memory from the operating system: zeroed arenas in huge pages, the weight section, executable code. Owners of mappings only; what
//! lies in them is planned by the compiler.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;

/// A huge page; arenas and weights start at a multiple of it.
pub const HUGE_PAGE: usize = 2 << 20;

/// How the weights come into memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LoadMode {
    /// Map the file: ready at once, shared between processes, as fast as memory where the kernel maps large folios.
    #[default]
    Mmap,
    /// Copy into anonymous huge pages: pays back after some tokens where mapped files come in small pages.
    Huge,
    /// Map, and copy only where the kernel maps the file in small pages.
    Auto,
}

/// Below this, small pages cost nothing that anybody would notice.
const AUTO_LEAST: usize = 64 << 20;
/// Places at which a mapping is looked at to tell the size of its pages.
const AUTO_LOOKS: usize = 16;

/// A private mapping; unmapped when dropped.
#[derive(Debug)]
pub struct Region {
    base: NonNull<u8>,
    bytes: usize,
}

// SAFETY: a region is plain memory without thread affinity; it hands out raw pointers only, and who uses them synchronises.
unsafe impl Send for Region {}
// SAFETY: see `Send`.
unsafe impl Sync for Region {}

impl Region {
    /// Zeroed read-write memory at a 2 MiB boundary, in huge pages where the system gives them. Pages that nobody touches cost nothing.
    ///
    /// # Errors
    /// The system refuses the mapping (`ENOMEM`).
    pub fn anonymous(bytes: usize) -> io::Result<Region> {
        if bytes == 0 {
            return Ok(Region { base: NonNull::dangling(), bytes: 0 });
        }
        let region = Region::reserve(bytes, libc::PROT_READ | libc::PROT_WRITE)?;
        // SAFETY: the range was just mapped; advice does not change its contents. Refusal (no THP in the kernel) is harmless.
        unsafe { libc::madvise(region.base.as_ptr().cast(), region.bytes, libc::MADV_HUGEPAGE) };
        Ok(region)
    }

    /// `bytes` of a file from `offset` (a multiple of the page size), read-only at a 2 MiB boundary, so that large folios map whole.
    ///
    /// # Errors
    /// The system refuses the mapping.
    pub fn map_file(file: &File, offset: u64, bytes: usize) -> io::Result<Region> {
        if bytes == 0 {
            return Ok(Region { base: NonNull::dangling(), bytes: 0 });
        }
        let region = Region::reserve(bytes, libc::PROT_NONE)?;
        let offset = libc::off_t::try_from(offset).map_err(io::Error::other)?;
        let flags = libc::MAP_SHARED | libc::MAP_FIXED;
        // SAFETY: replaces exactly the range that `region` owns and nobody knows yet.
        let at = unsafe { libc::mmap(region.base.as_ptr().cast(), region.bytes, libc::PROT_READ, flags, file.as_raw_fd(), offset) };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: as in `anonymous`.
        unsafe { libc::madvise(region.base.as_ptr().cast(), region.bytes, libc::MADV_HUGEPAGE) };
        Ok(region)
    }

    /// Weights from a file, in the way `mode` says.
    ///
    /// # Errors
    /// The system refuses memory, or the file cannot be read.
    pub fn load(file: &File, offset: u64, bytes: usize, mode: LoadMode) -> io::Result<Region> {
        match mode {
            LoadMode::Mmap => Region::map_file(file, offset, bytes),
            LoadMode::Auto => {
                let mapped = Region::map_file(file, offset, bytes)?;
                if bytes < AUTO_LEAST || mapped.comes_in_huge_pages() {
                    return Ok(mapped);
                }
                // No memory for a copy: the mapping works too.
                Region::load(file, offset, bytes, LoadMode::Huge).or(Ok(mapped))
            }
            LoadMode::Huge => {
                let mut region = Region::anonymous(bytes)?;
                let n = std::thread::available_parallelism().map_or(1, |n| n.get().min(4));
                let part = bytes.div_ceil(n).next_multiple_of(HUGE_PAGE);
                std::thread::scope(|scope| {
                    let readers: Vec<_> = region
                        .bytes_mut()
                        .chunks_mut(part)
                        .enumerate()
                        .map(|(i, chunk)| {
                            let at = offset + (i * part) as u64;
                            scope.spawn(move || std::os::unix::fs::FileExt::read_exact_at(file, chunk, at))
                        })
                        .collect();
                    readers.into_iter().try_for_each(|r| r.join().unwrap_or_else(|_| Err(io::Error::other("a reader failed"))))
                })?;
                Ok(region)
            }
        }
    }

    /// Whether most places of a mapped file that are touched here come in huge pages. Where the system does not say: yes.
    fn comes_in_huge_pages(&self) -> bool {
        let step = (self.bytes / AUTO_LOOKS).next_multiple_of(HUGE_PAGE);
        let mut looks = 0;
        // The last page may be short, so no kernel maps it whole.
        for at in (0..self.bytes.saturating_sub(HUGE_PAGE)).step_by(step) {
            // SAFETY: the place is in the mapping; a file that shrinks meanwhile is fatal for every user of a mapped artifact.
            unsafe { self.base.as_ptr().add(at).read_volatile() };
            looks += 1;
        }
        let Ok(smaps) = std::fs::read_to_string("/proc/self/smaps") else { return true };
        let start = format!("{:x}-", self.base.as_ptr() as usize);
        let own = smaps.lines().skip_while(|line| !line.starts_with(&start));
        let huge = own.skip(1).find_map(|line| line.strip_prefix("FilePmdMapped:"));
        let kilobytes = huge.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<usize>().ok());
        kilobytes.is_none_or(|k| k * 1024 >= looks * HUGE_PAGE / 2)
    }

    /// Executable, never writable: the file's own pages, or a copy where the file may not be mapped executable.
    ///
    /// # Errors
    /// The system allows neither.
    pub fn code(file: &File, offset: u64, code: &[u8]) -> io::Result<Region> {
        let bytes = code.len();
        let at = libc::off_t::try_from(offset).map_err(io::Error::other)?;
        let (exec, write) = (libc::PROT_READ | libc::PROT_EXEC, libc::PROT_READ | libc::PROT_WRITE);
        // SAFETY: a new mapping at an address that the system chooses.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), bytes, exec, libc::MAP_PRIVATE, file.as_raw_fd(), at) };
        if base != libc::MAP_FAILED {
            return Region::owned(base, bytes);
        }
        // A file system mounted `noexec` refuses; a copy is as good.
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: as above.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), bytes, write, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let mut region = Region::owned(base, bytes)?;
        region.bytes_mut().copy_from_slice(code);
        // SAFETY: the range is the region's; from here on nobody writes to it.
        if unsafe { libc::mprotect(base, bytes, exec) } != 0 {
            return Err(io::Error::last_os_error());
        }
        flush_instruction_cache(region.base.as_ptr(), bytes);
        Ok(region)
    }

    /// First byte. Stays valid and at the same place as long as the region.
    pub fn as_ptr(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether the region has no bytes.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Only for writable regions that nobody else points to yet.
    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: callers are the constructors above: the range is mapped read-write, initialised (zeroed) and exclusively ours.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr(), self.bytes) }
    }

    fn owned(base: *mut libc::c_void, bytes: usize) -> io::Result<Region> {
        let base = NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mapped at address 0"))?;
        Ok(Region { base, bytes })
    }

    /// Address space at a 2 MiB boundary, without a claim on memory until it is touched.
    fn reserve(bytes: usize, protection: i32) -> io::Result<Region> {
        let too_large = || io::Error::from(io::ErrorKind::OutOfMemory);
        let padded = bytes.checked_add(HUGE_PAGE).ok_or_else(too_large)?;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping at an address that the system chooses.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), padded, protection, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = base.cast::<u8>();
        let lead = start.align_offset(HUGE_PAGE).min(HUGE_PAGE);
        // SAFETY: both ranges lie in the mapping just made and outside the part that is kept; `munmap` rounds lengths up to pages, and
        // `lead` is a multiple of the page size because both ends are.
        unsafe {
            if lead > 0 {
                libc::munmap(base, lead);
            }
            let page = page_size();
            let end = lead + bytes.next_multiple_of(page);
            if end < padded {
                libc::munmap(start.add(end).cast(), padded - end);
            }
            Region::owned(start.add(lead).cast(), bytes)
        }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        if self.bytes > 0 {
            // SAFETY: the region owns the mapping; nobody uses pointers into it beyond its life (the contract of `as_ptr`).
            unsafe { libc::munmap(self.base.as_ptr().cast(), self.bytes) };
        }
    }
}

fn page_size() -> usize {
    // SAFETY: no preconditions.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

/// Makes freshly written code visible to instruction fetch. x86 does so by itself.
#[cfg(target_arch = "aarch64")]
fn flush_instruction_cache(start: *const u8, bytes: usize) {
    const LINE: usize = 16; // No smaller line is possible; a longer one only makes this repeat itself.
    for at in (0..bytes).step_by(LINE) {
        // SAFETY: cleans and invalidates lines of memory that the caller has mapped.
        unsafe { std::arch::asm!("dc cvau, {0}", "dsb ish", "ic ivau, {0}", in(reg) start.add(at)) };
    }
    // SAFETY: barriers only.
    unsafe { std::arch::asm!("dsb ish", "isb") };
}

/// Makes freshly written code visible to instruction fetch on every hart.
#[cfg(target_arch = "riscv64")]
fn flush_instruction_cache(start: *const u8, bytes: usize) {
    const SYS_RISCV_FLUSH_ICACHE: libc::c_long = 259;
    // SAFETY: the range is mapped; flags 0 means all threads of the process.
    unsafe { libc::syscall(SYS_RISCV_FLUSH_ICACHE, start, start.add(bytes), 0) };
}

#[cfg(not(any(target_arch = "aarch64", target_arch = "riscv64")))]
fn flush_instruction_cache(_start: *const u8, _bytes: usize) {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn an_anonymous_region_is_zero_aligned_and_lazily_backed() {
        let mut region = Region::anonymous(1 << 40).expect("a terabyte of address space");
        assert_eq!(region.as_ptr().align_offset(HUGE_PAGE), 0);
        let bytes = region.bytes_mut();
        assert_eq!((bytes[0], bytes[1 << 39]), (0, 0));
        bytes[(1 << 40) - 1] = 1;
    }

    #[test]
    fn all_load_modes_show_the_same_bytes() {
        let path = std::env::temp_dir().join(format!("llamac-memory-{}", std::process::id()));
        let data: Vec<u8> = (0..300_000u32).map(|i| (i % 251) as u8).collect();
        File::create(&path).and_then(|mut f| f.write_all(&data)).expect("write");
        let file = File::open(&path).expect("open");
        for mode in [LoadMode::Mmap, LoadMode::Huge, LoadMode::Auto] {
            let region = Region::load(&file, 65536, data.len() - 65536, mode).expect("load");
            // SAFETY: the region is readable and nobody writes to the file.
            let got = unsafe { std::slice::from_raw_parts(region.as_ptr(), region.len()) };
            assert!(got == &data[65536..], "{mode:?}");
            assert_eq!(region.as_ptr().align_offset(HUGE_PAGE), 0);
        }
        std::fs::remove_file(&path).expect("remove");
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn mapped_code_runs() {
        let path = std::env::temp_dir().join(format!("llamac-code-{}", std::process::id()));
        let code = [0x8d, 0x47, 0x01, 0xc3]; // lea eax, [rdi + 1]; ret
        std::fs::write(&path, code).expect("write");
        let region = Region::code(&File::open(&path).expect("open"), 0, &code).expect("code");
        // SAFETY: the bytes above are a function of this signature.
        let f: unsafe extern "C" fn(u32) -> u32 = unsafe { std::mem::transmute(region.as_ptr()) };
        // SAFETY: it reads its argument only.
        assert_eq!(unsafe { f(41) }, 42);
        std::fs::remove_file(&path).expect("remove");
    }
}

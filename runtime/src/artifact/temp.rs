//! A file that appears under its name only when it is complete: unnamed while it is written where the system can do that, else under a
//! temporary name that is removed when the writer fails, and by the next writer if this one is killed.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

const SUFFIX: &str = ".llamac-part";

/// A file in the making. Dropped without [`TempFile::publish`], it leaves nothing behind.
#[derive(Debug)]
pub(super) struct TempFile {
    file: File,
    /// `None`: the file has no name yet.
    name: Option<PathBuf>,
    target: PathBuf,
}

impl TempFile {
    /// Starts a file that will be `target`. A symbolic link is followed to what it points to.
    pub(super) fn create(target: &Path) -> io::Result<TempFile> {
        let target = match target.symlink_metadata() {
            Ok(found) if found.is_symlink() => target.canonicalize()?,
            _ => target.to_path_buf(),
        };
        match target.metadata() {
            Ok(found) if found.is_dir() => return Err(io::ErrorKind::IsADirectory.into()),
            // Replacing a device or a pipe by a file is never what anybody means.
            Ok(found) if !found.is_file() => return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
            _ => {}
        }
        let directory = parent(&target);
        remove_leftovers(&target);
        if let Some(file) = unnamed(directory) {
            return Ok(TempFile { file, name: None, target });
        }
        let name = temporary_name(&target);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&name)?;
        lock(&file);
        Ok(TempFile { file, name: Some(name), target })
    }

    /// The open file, readable and writable.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// The directory in which the file will be.
    pub(super) fn directory(&self) -> &Path {
        parent(&self.target)
    }

    /// Gives the file its name, replacing what is there, in one step.
    pub(super) fn publish(mut self) -> io::Result<PathBuf> {
        if self.name.is_none() {
            // A link cannot replace a file, a rename can: so an existing target takes a detour.
            match link(&self.file, &self.target) {
                Ok(()) => return Ok(self.target.clone()),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                    let name = temporary_name(&self.target);
                    link(&self.file, &name)?;
                    self.name = Some(name);
                }
                Err(e) => return Err(e),
            }
        }
        if let Some(name) = &self.name {
            std::fs::rename(name, &self.target)?;
            self.name = None;
        }
        Ok(self.target.clone())
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            // Nothing useful can be done if this fails; the next writer tries again.
            let _ = std::fs::remove_file(name);
        }
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A file without a name, if the file system and `/proc` (needed to name it later) allow.
fn unnamed(directory: &Path) -> Option<File> {
    let flags = libc::O_TMPFILE;
    let file = OpenOptions::new().read(true).write(true).mode(0o666).custom_flags(flags).open(directory).ok()?;
    descriptor_path(&file).exists().then_some(file)
}

fn descriptor_path(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

fn link(file: &File, name: &Path) -> io::Result<()> {
    let from = CString::new(descriptor_path(file).as_os_str().as_bytes())?;
    let to = CString::new(name.as_os_str().as_bytes())?;
    // SAFETY: both are strings that live through the call.
    let done = unsafe { libc::linkat(libc::AT_FDCWD, from.as_ptr(), libc::AT_FDCWD, to.as_ptr(), libc::AT_SYMLINK_FOLLOW) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// `.NAME.PID.llamac-part` beside the target.
fn temporary_name(target: &Path) -> PathBuf {
    let mut name = prefix(target);
    name.push(format!("{}{SUFFIX}", std::process::id()));
    parent(target).join(name)
}

fn prefix(target: &Path) -> std::ffi::OsString {
    let mut name = std::ffi::OsString::from(".");
    name.push(target.file_name().unwrap_or_default());
    name.push(".");
    name
}

/// Removes what killed writers of the same target left: nobody holds its lock.
fn remove_leftovers(target: &Path) {
    let prefix = prefix(target);
    for entry in std::fs::read_dir(parent(target)).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let ours = name.as_bytes().starts_with(prefix.as_bytes()) && name.as_bytes().ends_with(SUFFIX.as_bytes());
        if ours && File::open(entry.path()).is_ok_and(|f| lock(&f)) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Takes the lock that says a writer is alive; it goes with the descriptor.
fn lock(file: &File) -> bool {
    // SAFETY: the descriptor is open.
    unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn directory(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("llamac-temp-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("directory");
        path
    }

    fn names(path: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            std::fs::read_dir(path).expect("list").flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_appears_when_published_and_replaces_an_older_one() {
        let dir = directory("publish");
        let target = dir.join("a.llx");
        for text in ["first", "second"] {
            let temp = TempFile::create(&target).expect("create");
            temp.file().write_all(text.as_bytes()).expect("write");
            temp.publish().expect("publish");
            assert_eq!(std::fs::read_to_string(&target).expect("read"), text);
            assert_eq!(names(&dir), ["a.llx"]);
        }
        std::fs::remove_dir_all(dir).expect("remove");
    }

    #[test]
    fn a_dropped_file_and_leftovers_of_dead_writers_vanish_but_those_of_live_ones_stay() {
        let dir = directory("drop");
        let target = dir.join("a.llx");
        std::fs::write(dir.join(".a.llx.1.llamac-part"), "dead").expect("write");
        let alive = File::create(dir.join(".a.llx.2.llamac-part")).expect("create");
        assert!(lock(&alive));
        std::fs::write(dir.join(".b.llx.1.llamac-part"), "somebody else's").expect("write");
        drop(TempFile::create(&target).expect("create"));
        assert_eq!(names(&dir), [".a.llx.2.llamac-part", ".b.llx.1.llamac-part"]);
        std::fs::remove_dir_all(dir).expect("remove");
    }

    #[test]
    fn a_named_temporary_file_works_as_well() {
        let dir = directory("named");
        let target = dir.join("a.llx");
        let name = temporary_name(&target);
        let make = || TempFile { file: File::create(&name).expect("create"), name: Some(name.clone()), target: target.clone() };
        drop(make());
        assert!(names(&dir).is_empty());
        make().publish().expect("publish");
        assert_eq!(names(&dir), ["a.llx"]);
        std::fs::remove_dir_all(dir).expect("remove");
    }

    #[test]
    fn a_device_is_not_replaced() {
        assert!(TempFile::create(Path::new("/dev/null")).is_err());
        assert!(TempFile::create(&std::env::temp_dir()).is_err());
    }
}

//! How a chunk of each format is unpacked to signed bytes, 4 columns of 16 rows in a line.

use super::chunk::{Chunk, Place};
use super::{groups, rows};
use crate::abi::ROWS;
use crate::format::ACT_GROUP;
use crate::kernels::quant::amx::{Ahead, LINE};
use crate::kernels::quant::ints::Ints;
use std::arch::x86_64::*;

/// A format that chunks are unpacked of.
///
/// # Safety
/// Everything needs AVX-512. `w` has so many columns of a block; `columns` is a multiple of the format's unit, at most [`ACT_GROUP`].
pub(super) trait Unpacked {
    /// Columns that share a scale, those of a chunk where only rows have one.
    const GROUP: usize;
    /// Bytes behind the columns of a block: scales of its rows.
    const TRAILER: usize = 0;
    /// Packed bytes of so many columns of a block.
    fn bytes(columns: usize) -> usize;
    /// Unpacks the weights, and the scales of their groups.
    unsafe fn unpack(w: *const u8, columns: usize, chunk: &mut Chunk);
    /// Adds the products of `n` tiles of rows with the chunk to their results.
    unsafe fn add(chunk: &mut Chunk, n: usize, place: impl Fn(usize) -> Place);
    /// Multiplies the results of a row with the scales behind a block.
    #[inline(always)]
    unsafe fn scale_row(_scales: *const u8, _out: *mut f32) {}
}

/// A format whose units are two groups of lines and one line of their scales.
trait Units {
    /// Columns of a group.
    const GROUP: usize;
    /// Bytes of a group without its scales.
    const BYTES: usize;
    /// Signed codes of a group, from `to` on.
    ///
    /// # Safety
    /// As for [`Unpacked`].
    unsafe fn group(w: *const u8, to: *mut u8);
}

impl<U: Units> Unpacked for U {
    const GROUP: usize = U::GROUP;
    #[inline(always)]
    unsafe fn add(chunk: &mut Chunk, n: usize, place: impl Fn(usize) -> Place) {
        // SAFETY: the caller's promise.
        unsafe { groups::add::<U>(chunk, n, place) }
    }
    #[inline(always)]
    fn bytes(columns: usize) -> usize {
        columns / (2 * U::GROUP) * (2 * U::BYTES + LINE)
    }
    #[inline(always)]
    unsafe fn unpack(w: *const u8, columns: usize, chunk: &mut Chunk) {
        // SAFETY: the caller's promise; a chunk has room for 256 columns.
        unsafe {
            for group in 0..columns / U::GROUP {
                let unit = w.add(group / 2 * (2 * U::BYTES + LINE));
                U::group(unit.add(group % 2 * U::BYTES), chunk.codes(group * U::GROUP));
                _mm512_storeu_ps(chunk.scales(group), Ahead::scales(unit.add(2 * U::BYTES + group % 2 * 32)));
            }
        }
    }
}

/// Writes a line of codes without their offset.
///
/// # Safety
/// As for [`Unpacked`].
#[inline(always)]
unsafe fn put(to: *mut u8, codes: __m512i, offset: i8) {
    // SAFETY: the caller's promise.
    unsafe { _mm512_storeu_si512(to.cast(), _mm512_sub_epi8(codes, _mm512_set1_epi8(offset))) }
}

/// int4 in groups of `G`.
pub(super) struct Four<const G: usize>;

impl<const G: usize> Units for Four<G> {
    const GROUP: usize = G;
    const BYTES: usize = G / 8 * LINE;
    #[inline(always)]
    unsafe fn group(w: *const u8, to: *mut u8) {
        for line in 0..G / 8 {
            // SAFETY: the caller's promise.
            unsafe {
                let (low, high) = Ahead::halves(w.add(line * LINE));
                put(to.add(2 * line * LINE), low, 8);
                put(to.add((2 * line + 1) * LINE), high, 8);
            }
        }
    }
}

/// int6 in groups of 32.
pub(super) struct Six;

impl Units for Six {
    const GROUP: usize = 32;
    const BYTES: usize = 6 * LINE;
    #[inline(always)]
    unsafe fn group(w: *const u8, to: *mut u8) {
        for line in 0..4 {
            // SAFETY: the caller's promise.
            unsafe {
                let (first, second) = Ahead::sixes(w.add(line * LINE), w.add((4 + line / 2) * LINE), line % 2 == 1);
                put(to.add(2 * line * LINE), first, 32);
                put(to.add((2 * line + 1) * LINE), second, 32);
            }
        }
    }
}

/// int8 in groups of 32.
pub(super) struct Eight;

impl Units for Eight {
    const GROUP: usize = 32;
    const BYTES: usize = 8 * LINE;
    #[inline(always)]
    unsafe fn group(w: *const u8, to: *mut u8) {
        for line in 0..8 {
            // SAFETY: the caller's promise. Less an offset of 128 is, in 8 bits, more 128.
            unsafe { put(to.add(line * LINE), Ahead::eight(w.add(line * LINE)), i8::MIN) }
        }
    }
}

/// int8 by rows.
pub(super) struct Row;

impl Unpacked for Row {
    const GROUP: usize = ACT_GROUP;
    const TRAILER: usize = LINE;
    #[inline(always)]
    unsafe fn add(chunk: &mut Chunk, n: usize, place: impl Fn(usize) -> Place) {
        // SAFETY: the caller's promise.
        unsafe { rows::add(chunk, n, place) }
    }
    #[inline(always)]
    fn bytes(columns: usize) -> usize {
        columns * ROWS
    }
    #[inline(always)]
    unsafe fn unpack(w: *const u8, columns: usize, chunk: &mut Chunk) {
        for line in 0..columns / 4 {
            // SAFETY: the caller's promise.
            unsafe { put(chunk.codes(4 * line), Ahead::eight(w.add(line * LINE)), i8::MIN) }
        }
    }
    #[inline(always)]
    unsafe fn scale_row(scales: *const u8, out: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { _mm512_storeu_ps(out, _mm512_mul_ps(_mm512_loadu_ps(out), _mm512_loadu_ps(scales.cast()))) }
    }
}

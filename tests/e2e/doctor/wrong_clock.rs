//! A library that, preloaded, makes a program see another time of day: `CLOCK_AHEAD` seconds later, or earlier.
//!
//! The kernel has one time of day for all namespaces, so a machine with a wrong clock has to be a program with one.
//! Compiled by the test that uses it.

use std::ffi::{c_char, c_int, c_void};

#[repr(C)]
pub struct Timespec {
    seconds: i64,
    nanoseconds: i64,
}

type ClockGettime = unsafe extern "C" fn(c_int, *mut Timespec) -> c_int;

unsafe extern "C" {
    fn dlsym(handle: *mut c_void, symbol: *const c_char) -> *mut c_void;
    fn getenv(name: *const c_char) -> *const c_char;
    fn atol(text: *const c_char) -> i64;
}

/// The definition after this one: libc's.
const RTLD_NEXT: *mut c_void = -1_isize as *mut c_void;
const CLOCK_REALTIME: c_int = 0;

/// # Safety
/// As libc's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: c_int, time: *mut Timespec) -> c_int {
    // SAFETY: libc has this function, of this type; the caller vouches for the pointer.
    unsafe {
        let next = dlsym(RTLD_NEXT, c"clock_gettime".as_ptr());
        let next: ClockGettime = std::mem::transmute(next);
        let result = next(clock, time);
        let ahead = getenv(c"CLOCK_AHEAD".as_ptr());
        if result == 0 && clock == CLOCK_REALTIME && !ahead.is_null() {
            (*time).seconds += atol(ahead);
        }
        result
    }
}

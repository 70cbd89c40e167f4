//! What happened, as one number: two runs of one seed must come to the same.
//!
//! Times, ends, kinds and lengths go in; ciphertext does not, because boringtun draws its keys from the operating
//! system. With `SIM_TRACE=1` in the environment every line is printed too, which is how a failing seed is read.

use std::fmt;

use crate::clock::Moment;

/// The story so far.
#[derive(Debug)]
pub struct Trace {
    hash: u64,
    lines: u64,
    prints: bool,
}

impl Default for Trace {
    fn default() -> Self {
        Self {
            hash: 0xcbf2_9ce4_8422_2325,
            lines: 0,
            prints: std::env::var_os("SIM_TRACE").is_some(),
        }
    }
}

impl Trace {
    /// Adds a line.
    pub fn note(&mut self, now: Moment, line: fmt::Arguments<'_>) {
        self.lines += 1;
        // Writing into the hash cannot fail.
        let _ = fmt::write(self, format_args!("{} {line}", now.as_nanos()));
        if self.prints {
            println!("{:>12.6} {line}", now.as_secs_f64());
        }
    }

    /// Whether somebody reads along.
    pub fn is_read(&self) -> bool {
        self.prints
    }

    /// Adds nothing, but is printed.
    pub fn aside(&self, line: fmt::Arguments<'_>) {
        if self.prints {
            println!("             {line}");
        }
    }

    /// The number.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// How many lines went into it.
    pub fn lines(&self) -> u64 {
        self.lines
    }
}

impl fmt::Write for Trace {
    /// FNV-1a.
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
        Ok(())
    }
}

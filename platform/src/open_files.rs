//! How many files, sockets above all, this process may have open.

use std::io;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises the limit to this many, or to what the system lets us have. Returns what it is now.
pub fn raise_limit(wanted: u64) -> io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let raised = wanted.clamp(soft, hard.max(soft));
    setrlimit(Resource::RLIMIT_NOFILE, raised, hard)?;
    Ok(raised)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_raised_and_never_lowered() {
        let now = raise_limit(0).unwrap();
        let raised = raise_limit(now + 1).unwrap();
        assert!(raised >= now);
        assert_eq!(raise_limit(0).unwrap(), raised);
    }
}

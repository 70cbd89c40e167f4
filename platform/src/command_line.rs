//! Taking a secret back out of the command line, where every user of this machine can read it.
//!
//! Linux shows the memory in which the arguments lie, as it is when somebody looks. So a secret that is overwritten
//! there is gone from `ps`, though not from the memory of whoever looked before, nor from the shell's history.

use std::io;

/// Overwrites the end of each argument that equals `argument`, from byte `secret` on. Returns whether there was one.
///
/// The length of the secret still shows.
#[cfg(target_os = "linux")]
pub fn wipe(argument: &str, secret: usize) -> io::Result<bool> {
    use std::{fs, os::unix::fs::FileExt};

    let (start, end) = arguments(&fs::read_to_string("/proc/self/stat")?)
        .ok_or_else(|| io::Error::other("/proc/self/stat does not say where the arguments are"))?;
    let length = usize::try_from(end - start).map_err(io::Error::other)?;
    let memory = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/proc/self/mem")?;
    let mut bytes = zeroize::Zeroizing::new(vec![0; length]);
    memory.read_exact_at(&mut bytes, start)?;
    let mut found = false;
    let mut at = start;
    for part in bytes.split(|byte| *byte == 0) {
        // `--option=argument` is one part, `--option argument` are two.
        let value = part.strip_suffix(argument.as_bytes());
        if let Some(before) = value.filter(|before| before.is_empty() || before.ends_with(b"=")) {
            let from = at + (before.len() + secret) as u64;
            memory.write_all_at(&vec![b'*'; argument.len() - secret], from)?;
            found = true;
        }
        at += part.len() as u64 + 1;
    }
    Ok(found)
}

/// Elsewhere there is no way that needs no cooperation of the C library.
#[cfg(not(target_os = "linux"))]
pub fn wipe(_: &str, _: usize) -> io::Result<bool> {
    Err(io::ErrorKind::Unsupported.into())
}

/// `arg_start` and `arg_end` of proc_pid_stat(5), the 48th field and the next.
#[cfg(target_os = "linux")]
fn arguments(stat: &str) -> Option<(u64, u64)> {
    // The second field, the program's name, may contain anything, but nothing after it contains a parenthesis.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(48 - 3);
    let (start, end) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    (0 < start && start <= end).then_some((start, end))
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_counted_behind_the_programs_name() {
        let numbers: Vec<_> = (3..=52).map(|field| field.to_string()).collect();
        let stat = format!("7 (a) (b) {}", numbers.join(" "));
        assert_eq!(arguments(&stat), Some((48, 49)));
        assert_eq!(arguments("7 (a) S 1"), None);
        assert_eq!(arguments(""), None);
    }

    #[test]
    fn what_is_not_on_the_command_line_is_not_found() {
        assert!(!wipe("name:a secret that nobody gave this test", 5).unwrap());
    }

    /// The end-to-end tests look at a whole process; here the first argument, the program's path, loses its last letter.
    #[test]
    fn what_is_wiped_is_gone_from_what_others_see() {
        let program = std::env::args().next().unwrap();
        assert!(wipe(&program, program.len() - 1).unwrap());
        let shown = std::fs::read("/proc/self/cmdline").unwrap();
        let shown = shown.split(|byte| *byte == 0).next().unwrap();
        assert_eq!(
            shown,
            format!("{}*", &program[..program.len() - 1]).as_bytes()
        );
    }
}

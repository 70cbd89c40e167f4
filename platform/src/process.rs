//! Telling a process from a later one with the same number.

/// When the process was started, in ticks since the machine was; nothing, if there is no such process (any more).
pub fn started(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    started_in(&stat)
}

/// Fields 3 and 22 of proc_pid_stat(5). The second is a name in parentheses, which may contain anything.
fn started_in(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let is_dead = matches!(fields.next()?, "Z" | "X");
    fields.nth(18)?.parse().ok().filter(|_| !is_dead)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_is_found_behind_any_name() {
        let fields = "S 1 2 3 0 -1 4 5 6 7 8 9 10 11 12 20 0 1 0 4711 99 100";
        assert_eq!(started_in(&format!("7 (a) b) {fields}\n")), Some(4711));
        let dead = fields.replacen('S', "Z", 1);
        assert_eq!(started_in(&format!("7 (dead) {dead}\n")), None);
        assert_eq!(started_in("7 (short) S 1"), None);
        assert_eq!(started_in(""), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn we_run_and_nobody_has_the_number_0() {
        assert!(started(std::process::id()).is_some());
        assert_eq!(started(0), None);
    }
}

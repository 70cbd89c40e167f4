//! What this machine calls itself, as a name that can go into the overlay's DNS.

/// Longest label in DNS (RFC 1035, section 2.3.4).
const MAX_LABEL: usize = 63;

/// The name of a machine that has none.
const NAMELESS: &str = "node";

/// The first label of the host name, in the characters `a-z 0-9 -`, 1 to 63 of them.
pub fn host_name() -> String {
    let name = nix::unistd::gethostname().unwrap_or_default();
    sanitize(&name.to_string_lossy())
}

/// Runs of other characters become one dash; none stands at either end.
fn sanitize(name: &str) -> String {
    let first_label = name.split('.').next().unwrap_or_default();
    let words = first_label.split(|character: char| !character.is_ascii_alphanumeric());
    let words: Vec<_> = words.filter(|word| !word.is_empty()).collect();
    let mut label = words.join("-").to_ascii_lowercase();
    label.truncate(MAX_LABEL);
    match label.trim_end_matches('-') {
        "" => NAMELESS.to_owned(),
        label => label.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_becomes_a_label() {
        assert_eq!(sanitize("Workstation-7.corp.example"), "workstation-7");
        assert_eq!(sanitize("Müllers__Laptop "), "m-llers-laptop");
        assert_eq!(sanitize("-edge-"), "edge");
        assert_eq!(sanitize(""), NAMELESS);
        assert_eq!(sanitize("...."), NAMELESS);
        assert_eq!(sanitize("日本"), NAMELESS);
        assert_eq!(sanitize(&"a".repeat(100)).len(), MAX_LABEL);
        assert_eq!(sanitize(&format!("{}-b", "a".repeat(62))), "a".repeat(62));
    }

    #[test]
    fn this_machine_has_a_label() {
        let name = host_name();
        assert_eq!(name, sanitize(&name));
        assert!((1..=MAX_LABEL).contains(&name.len()));
    }
}

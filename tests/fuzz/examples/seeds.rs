//! Writes something genuine into each corpus, for the fuzzers to begin with.

use std::{fs, path::Path};

fn main() -> std::io::Result<()> {
    for (at, (name, bytes)) in hivevpn_fuzz::seeds().into_iter().enumerate() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("corpus")
            .join(name);
        fs::create_dir_all(&corpus)?;
        fs::write(corpus.join(format!("seed-{at:02}")), bytes)?;
    }
    Ok(())
}

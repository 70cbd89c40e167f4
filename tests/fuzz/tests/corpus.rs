//! What the fuzzers have found worth keeping, and random bytes beside: nothing of it panics.

use std::{fs, path::Path};

use hivevpn_fuzz::TARGETS;

/// Runs of random bytes beside each corpus.
const RANDOM: u64 = 200;

#[test]
fn every_corpus_is_read_without_a_panic() {
    for (name, target) in TARGETS {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("corpus")
            .join(name);
        let files: Vec<_> = fs::read_dir(&corpus)
            .expect("each target has a corpus")
            .map(|file| file.expect("it can be listed").path())
            .collect();
        assert!(!files.is_empty(), "{name} has a corpus");
        for file in files {
            target(&fs::read(&file).expect("it can be read"));
        }
    }
}

#[test]
fn random_bytes_are_read_without_a_panic() {
    for (_, target) in TARGETS {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for run in 0..RANDOM {
            let bytes: Vec<u8> = std::iter::repeat_with(|| {
                // xorshift64
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state as u8
            })
            .take((run * 7) as usize)
            .collect();
            target(&bytes);
        }
    }
}

//! What fuzzers have found, and random bytes beside: nothing of it disturbs a network.

use std::{fs, path::Path};

use hivevpn_sim::hostile::live_through;

/// Random stories beside the corpus.
const STORIES: u64 = 400;

#[test]
fn the_corpus_of_the_fuzzer_disturbs_nobody() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/hostile");
    let files: Vec<_> = fs::read_dir(corpus)
        .expect("the corpus is there")
        .map(|file| file.expect("it can be listed").path())
        .collect();
    assert!(files.len() >= 8, "a corpus has some files");
    for file in files {
        let broken = live_through(&fs::read(&file).expect("it can be read"));
        assert!(broken.is_empty(), "{}: {broken:?}", file.display());
    }
}

#[test]
fn a_network_that_nobody_disturbs_works() {
    assert_eq!(live_through(&[]), []);
}

#[test]
fn random_hostility_disturbs_nobody() {
    for seed in 0..STORIES {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut bytes = vec![0; rng.usize(0..4000)];
        rng.fill(&mut bytes);
        let broken = live_through(&bytes);
        assert!(broken.is_empty(), "seed {seed}: {broken:?}");
    }
}

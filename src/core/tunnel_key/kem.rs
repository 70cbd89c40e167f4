//! The secret that two nodes agree on: by ML-KEM-768 (FIPS 203), or, in a build without the feature `pq`, none.

#[cfg(feature = "pq")]
mod suite {
    use ml_kem::{
        B32, DecapsulationKey768, EncapsulationKey768, Seed,
        kem::{Decapsulate, KeyExport},
    };
    use zeroize::{Zeroize, Zeroizing};

    /// What sets this way of agreeing apart from others.
    pub const SUITE: u8 = 1;
    /// Length of an encapsulation key in bytes.
    pub const OFFER: usize = 1184;
    /// Length of a ciphertext in bytes.
    pub const ACCEPTANCE: usize = 1088;

    /// The seed of a decapsulation key: a thirtieth of its size.
    pub struct Secret(Zeroizing<[u8; 64]>);

    impl Secret {
        fn key(&self) -> DecapsulationKey768 {
            let mut seed = Seed::from(*self.0);
            let key = DecapsulationKey768::from_seed(seed);
            seed.zeroize();
            key
        }
    }

    /// Makes a key for one exchange out of random bytes, and the offer that carries its public half.
    pub fn offer(random: Zeroizing<[u8; 64]>) -> (Secret, Vec<u8>) {
        let secret = Secret(random);
        let offer = secret.key().encapsulation_key().to_bytes().to_vec();
        (secret, offer)
    }

    /// Agrees on a secret with who made the offer, unless it is none. Returns what to send in return, and the secret.
    pub fn accept(
        offer: &[u8],
        random: &Zeroizing<[u8; 64]>,
    ) -> Option<(Vec<u8>, Zeroizing<[u8; 32]>)> {
        let key = EncapsulationKey768::new(&offer.try_into().ok()?).ok()?;
        let mut message = B32::try_from(random.get(..32)?).ok()?;
        let (ciphertext, mut shared) = key.encapsulate_deterministic(&message);
        let secret = Zeroizing::new(shared.into());
        message.zeroize();
        shared.zeroize();
        Some((ciphertext.to_vec(), secret))
    }

    /// The secret that was agreed on by accepting our offer. A forged acceptance leads to another one.
    pub fn open(secret: &Secret, acceptance: &[u8]) -> Option<Zeroizing<[u8; 32]>> {
        let mut shared = secret.key().decapsulate(&acceptance.try_into().ok()?);
        let opened = Zeroizing::new(shared.into());
        shared.zeroize();
        Some(opened)
    }
}

#[cfg(not(feature = "pq"))]
mod suite {
    use zeroize::Zeroizing;

    /// What sets this way of agreeing apart from others.
    pub const SUITE: u8 = 0;
    /// Length of a random number in bytes: it makes every session's key another one.
    pub const OFFER: usize = 32;
    /// The same.
    pub const ACCEPTANCE: usize = 32;

    /// There is none.
    pub struct Secret;

    /// Random bytes, for all to see.
    pub fn offer(random: Zeroizing<[u8; 64]>) -> (Secret, Vec<u8>) {
        (Secret, random[..OFFER].to_vec())
    }

    /// Random bytes in return, and no secret.
    pub fn accept(
        offer: &[u8],
        random: &Zeroizing<[u8; 64]>,
    ) -> Option<(Vec<u8>, Zeroizing<[u8; 32]>)> {
        let is_sound = offer.len() == OFFER;
        is_sound.then(|| (random[..ACCEPTANCE].to_vec(), Zeroizing::new([0; 32])))
    }

    /// No secret.
    pub fn open(_: &Secret, acceptance: &[u8]) -> Option<Zeroizing<[u8; 32]>> {
        (acceptance.len() == ACCEPTANCE).then(|| Zeroizing::new([0; 32]))
    }
}

pub use suite::{ACCEPTANCE, OFFER, SUITE, Secret, accept, offer, open};

/// What the suites are called in the log.
pub fn name(suite: u8) -> &'static str {
    match suite {
        0 => "no post-quantum secret",
        1 => "ML-KEM-768",
        _ => "a way that this version does not know",
    }
}

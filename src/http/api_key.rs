//! The key that a backend asks for.

use std::{fmt, path::Path};

use anyhow::{Context, Result};
use hivevpn_platform::secret_file;
use hyper::header::HeaderValue;
use zeroize::Zeroizing;

/// The secret that opens a model server to whoever has it. It is never shown.
#[derive(Clone)]
pub struct ApiKey(Zeroizing<String>);

impl ApiKey {
    /// The key that a text is.
    pub fn new(text: &str) -> Option<Self> {
        let is_key = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        is_key.then(|| Self(Zeroizing::new(text.to_owned())))
    }

    /// The key in a file, which must be private: one line of visible ASCII.
    pub fn from_file(path: &Path) -> Result<Self> {
        let bytes = secret_file::read(path).context("the API key cannot be read")?;
        let text = std::str::from_utf8(&bytes)
            .map(str::trim)
            .unwrap_or_default();
        Self::new(text).with_context(|| {
            let path = path.display();
            format!("{path}: an API key is one line of letters, digits and signs")
        })
    }

    /// The key itself.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What `Authorization` has to say.
    pub(super) fn bearer(&self) -> Option<HeaderValue> {
        let text = Zeroizing::new(format!("Bearer {}", *self.0));
        let mut value = HeaderValue::from_str(&text).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    #[test]
    fn a_key_comes_from_a_private_file_and_is_never_shown() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("llm.key");
        secret_file::create(&path, b"sk-secret\n").unwrap();
        let key = ApiKey::from_file(&path).unwrap();
        assert_eq!(key.expose(), "sk-secret");
        assert_eq!(key.bearer().unwrap(), "Bearer sk-secret");
        assert!(!format!("{key:?} {:?}", key.bearer()).contains("secret"));

        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let error = format!("{:#}", ApiKey::from_file(&path).unwrap_err());
        assert!(error.contains("chmod 600"), "{error}");
    }

    #[test]
    fn what_is_no_key_is_refused_without_being_shown() {
        let directory = tempfile::tempdir().unwrap();
        for (name, content) in [
            ("empty", ""),
            ("lines", "a\nb"),
            ("spaces", "a b"),
            ("umlaut", "kä"),
        ] {
            let path = directory.path().join(name);
            secret_file::create(&path, content.as_bytes()).unwrap();
            let error = format!("{:#}", ApiKey::from_file(&path).unwrap_err());
            assert!(
                error.ends_with("one line of letters, digits and signs"),
                "{error}"
            );
        }
    }
}

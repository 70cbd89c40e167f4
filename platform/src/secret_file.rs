//! Secrets on disk: written whole and private or not at all, and not read if others could have.
//!
//! A key that somebody else may have read is worth nothing, and nothing in the file tells. So [`read`] looks at the
//! permissions of the very file it reads and refuses loose ones, in the words of a command that mends them.

use std::fs::{self, DirBuilder, File, Metadata, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::privileges::{SERVICE, ServiceUser, effective_uid};

/// Largest secret: far more than any key or certificate bundle, small enough to read a wrong file without harm.
const MAX_SECRET: u64 = 64 * 1024;

/// Permission bits of group and others.
const LOOSE: u32 = 0o077;

/// Why a secret cannot be kept or used. Every message names its file.
#[derive(Debug, thiserror::Error)]
pub enum SecretFileError {
    /// [`create`] never replaces.
    #[error("{} exists already: move it away first if it is to be replaced", .0.display())]
    Exists(PathBuf),
    /// There is nothing.
    #[error("{} does not exist", .0.display())]
    Missing(PathBuf),
    /// Group or others have permissions on the file.
    #[error(
        "{path} can be read or changed by others (mode {mode:04o}): run `chmod 600 {path}`, and if somebody else uses \
         this machine, make a new key",
        path = path.display()
    )]
    LooseFile {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Group or others have permissions on the directory.
    #[error(
        "{path} holds secrets but is open to others (mode {mode:04o}): run `chmod 700 {path}`, or choose a directory \
         that is not shared",
        path = path.display()
    )]
    LooseDirectory {
        /// The directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Neither we nor root own the file or directory, nor, if we are root, the service's user.
    #[error("{path} belongs to user {owner}: run `chown {us} {path}`", path = path.display())]
    ForeignOwner {
        /// The file or directory.
        path: PathBuf,
        /// Its owner's user id.
        owner: u32,
        /// Our user id.
        us: u32,
    },
    /// The path leads to something else than expected.
    #[error("{} is not a {expected}", path.display())]
    WrongKind {
        /// The path.
        path: PathBuf,
        /// `file` or `directory`.
        expected: &'static str,
    },
    /// The file is larger than any secret.
    #[error("{} is larger than 64 KiB: it is not one of our keys", .0.display())]
    TooLarge(PathBuf),
    /// Anything else.
    #[error("cannot {action} {path}", path = path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// For `map_err`: which action on which path failed.
fn failed<'a>(
    action: &'static str,
    path: &'a Path,
) -> impl FnOnce(io::Error) -> SecretFileError + 'a {
    move |source| SecretFileError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

/// Writes a new secret, readable by its owner only. The directory must exist.
///
/// When this returns the secret is on disk; when it fails or the machine loses power there is no file. Never replaces
/// an existing file, not even when two processes try at once.
pub fn create(path: &Path, secret: &[u8]) -> Result<(), SecretFileError> {
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        Some(_) | None => Path::new("."),
    };
    // Written under a random name that goes away on failure; the real name appears when everything is in it.
    let private = Permissions::from_mode(0o600);
    let mut file = tempfile::Builder::new()
        .prefix(".new-")
        .permissions(private)
        .tempfile_in(directory)
        .map_err(failed("create a file in", directory))?;
    file.write_all(secret).map_err(failed("write", path))?;
    file.as_file().sync_all().map_err(failed("write", path))?;
    file.persist_noclobber(path)
        .map_err(|persist| match persist.error {
            error if error.kind() == io::ErrorKind::AlreadyExists => {
                SecretFileError::Exists(path.to_owned())
            }
            error => failed("create", path)(error),
        })?;
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(failed("write", directory))
}

/// Reads a secret that nobody else can have read.
pub fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, SecretFileError> {
    let file = open_private(path)?;
    // Room for everything from the start: growing would leave copies behind that nobody wipes.
    let mut secret = Zeroizing::new(Vec::with_capacity(MAX_SECRET as usize + 1));
    file.take(MAX_SECRET)
        .read_to_end(&mut secret)
        .map_err(failed("read", path))?;
    Ok(secret)
}

/// Finds what [`read`] would refuse, without reading.
pub fn check(path: &Path) -> Result<(), SecretFileError> {
    open_private(path).map(drop)
}

fn open_private(path: &Path) -> Result<File, SecretFileError> {
    let file = File::open(path).map_err(|error| match error {
        error if error.kind() == io::ErrorKind::NotFound => {
            SecretFileError::Missing(path.to_owned())
        }
        error => failed("open", path)(error),
    })?;
    let metadata = file.metadata().map_err(failed("read", path))?;
    if !metadata.is_file() {
        return Err(SecretFileError::WrongKind {
            path: path.to_owned(),
            expected: "file",
        });
    }
    check_owner(path, &metadata)?;
    if metadata.mode() & LOOSE != 0 {
        return Err(SecretFileError::LooseFile {
            path: path.to_owned(),
            mode: permissions(&metadata),
        });
    }
    if metadata.len() > MAX_SECRET {
        return Err(SecretFileError::TooLarge(path.to_owned()));
    }
    Ok(file)
}

/// Makes sure there is a directory at `path` that only its owner can look into.
///
/// A loose one is tightened while it is empty. One with files in it is refused: it may be somebody's, such as `/tmp`,
/// and its files may have been read already.
pub fn create_private_dir(path: &Path) -> Result<(), SecretFileError> {
    if let Err(error) = DirBuilder::new().recursive(true).mode(0o700).create(path)
        && error.kind() != io::ErrorKind::AlreadyExists
    {
        return Err(failed("create", path)(error));
    }
    let loose = match check_private_dir(path) {
        Err(loose @ SecretFileError::LooseDirectory { .. }) => loose,
        checked => return checked,
    };
    let empty = fs::read_dir(path)
        .map_err(failed("look into", path))?
        .next()
        .is_none();
    if empty && fs::set_permissions(path, Permissions::from_mode(0o700)).is_ok() {
        return Ok(());
    }
    Err(loose)
}

/// Finds what keeps the directory from being used for secrets, and changes nothing.
pub fn check_private_dir(path: &Path) -> Result<(), SecretFileError> {
    let metadata = fs::metadata(path).map_err(|error| match error {
        error if error.kind() == io::ErrorKind::NotFound => {
            SecretFileError::Missing(path.to_owned())
        }
        error => failed("look at", path)(error),
    })?;
    if !metadata.is_dir() {
        return Err(SecretFileError::WrongKind {
            path: path.to_owned(),
            expected: "directory",
        });
    }
    check_owner(path, &metadata)?;
    if metadata.mode() & LOOSE != 0 {
        return Err(SecretFileError::LooseDirectory {
            path: path.to_owned(),
            mode: permissions(&metadata),
        });
    }
    Ok(())
}

/// Finds everything that keeps a state directory from being used: the directory itself, every `*.key` in it and the
/// directories below it. Changes nothing.
pub fn check_state(state: &Path) -> Vec<SecretFileError> {
    let directory = check_private_dir(state);
    if let Err(error) = &directory
        && !matches!(
            error,
            SecretFileError::LooseDirectory { .. } | SecretFileError::ForeignOwner { .. }
        )
    {
        return directory.err().into_iter().collect();
    }
    let mut found: Vec<_> = directory.err().into_iter().collect();
    let entries = match fs::read_dir(state) {
        Ok(entries) => entries,
        Err(error) => {
            found.push(failed("look into", state)(error));
            return found;
        }
    };
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        let checked = if path.extension().is_some_and(|extension| extension == "key") {
            check(&path)
        } else if fs::symlink_metadata(&path).is_ok_and(|found| found.is_dir()) {
            check_private_dir(&path)
        } else {
            continue;
        };
        found.extend(checked.err());
    }
    found
}

/// Ours and root's are fine; and root may use what belongs to the user that its daemon is when it runs.
fn check_owner(path: &Path, metadata: &Metadata) -> Result<(), SecretFileError> {
    let (owner, us) = (metadata.uid(), effective_uid());
    if owner == us || owner == 0 || us == 0 && is_service(owner) {
        return Ok(());
    }
    Err(SecretFileError::ForeignOwner {
        path: path.to_owned(),
        owner,
        us,
    })
}

fn permissions(metadata: &Metadata) -> u32 {
    metadata.mode() & 0o7777
}

fn is_service(uid: u32) -> bool {
    matches!(ServiceUser::named(SERVICE), Ok(Some(user)) if user.uid == uid)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{chown, symlink};

    use tempfile::{TempDir, tempdir};

    use super::*;

    fn file_with_mode(directory: &TempDir, mode: u32) -> PathBuf {
        let path = directory.path().join("identity.key");
        create(&path, b"secret").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    }

    fn mode(path: &Path) -> u32 {
        permissions(&fs::metadata(path).unwrap())
    }

    #[test]
    fn a_secret_is_written_private_and_read_back() {
        let directory = tempdir().unwrap();
        let path = directory.path().join("identity.key");
        create(&path, b"secret").unwrap();
        assert_eq!(mode(&path), 0o600);
        assert_eq!(*read(&path).unwrap(), b"secret");
    }

    #[test]
    fn an_existing_secret_is_never_replaced() {
        let directory = tempdir().unwrap();
        let path = directory.path().join("identity.key");
        create(&path, b"first").unwrap();
        assert!(matches!(
            create(&path, b"second"),
            Err(SecretFileError::Exists(_))
        ));
        assert_eq!(*read(&path).unwrap(), b"first");
        // Nor is a link followed to a place of somebody else's choice.
        let link = directory.path().join("wg.key");
        symlink(directory.path().join("elsewhere"), &link).unwrap();
        assert!(matches!(
            create(&link, b"second"),
            Err(SecretFileError::Exists(_))
        ));
    }

    #[test]
    fn a_failed_write_leaves_nothing_behind() {
        let directory = tempdir().unwrap();
        let path = directory.path().join("identity.key");
        create(&path, b"first").unwrap();
        create(&path, b"second").unwrap_err();
        let names: Vec<_> = fs::read_dir(&directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names, ["identity.key"]);

        let nowhere = directory.path().join("missing").join("identity.key");
        let error = create(&nowhere, b"secret").unwrap_err();
        assert!(
            error.to_string().starts_with("cannot create a file in "),
            "{error}"
        );
    }

    #[test]
    fn a_secret_that_others_could_read_is_refused_with_the_command_that_mends_it() {
        let directory = tempdir().unwrap();
        let path = file_with_mode(&directory, 0o600);
        for loose in [0o604, 0o640, 0o620, 0o601] {
            fs::set_permissions(&path, Permissions::from_mode(loose)).unwrap();
            let error = read(&path).unwrap_err();
            assert!(
                matches!(error, SecretFileError::LooseFile { mode, .. } if mode == loose),
                "{loose:o}: {error}"
            );
            assert!(
                error
                    .to_string()
                    .contains(&format!("chmod 600 {}", path.display())),
                "{error}"
            );
        }
        fs::set_permissions(&path, Permissions::from_mode(0o400)).unwrap();
        assert_eq!(*read(&path).unwrap(), b"secret");
    }

    #[test]
    fn a_secret_of_another_user_is_refused() {
        let directory = tempdir().unwrap();
        let path = file_with_mode(&directory, 0o600);
        if effective_uid() != 0 {
            println!("skipped: only root can give files away");
            return;
        }
        chown(&path, Some(12_345), None).unwrap();
        let error = read(&path).unwrap_err();
        assert!(
            matches!(error, SecretFileError::ForeignOwner { owner: 12_345, .. }),
            "{error}"
        );
    }

    #[test]
    fn what_is_no_secret_of_ours_is_told_apart() {
        let directory = tempdir().unwrap();
        assert!(matches!(
            read(&directory.path().join("missing")),
            Err(SecretFileError::Missing(_))
        ));
        assert!(matches!(
            read(directory.path()),
            Err(SecretFileError::WrongKind {
                expected: "file",
                ..
            })
        ));
        let large = directory.path().join("large");
        create(&large, &vec![0; MAX_SECRET as usize + 1]).unwrap();
        assert!(matches!(read(&large), Err(SecretFileError::TooLarge(_))));
    }

    #[test]
    fn a_private_directory_is_made_with_its_parents_and_made_only_once() {
        let directory = tempdir().unwrap();
        let path = directory.path().join("state").join("hive");
        create_private_dir(&path).unwrap();
        create_private_dir(&path).unwrap();
        assert_eq!(mode(&path), 0o700);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
    }

    #[test]
    fn a_loose_directory_is_tightened_while_empty_and_refused_afterwards() {
        let directory = tempdir().unwrap();
        let path = directory.path().join("state");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        create_private_dir(&path).unwrap();
        assert_eq!(mode(&path), 0o700);

        fs::set_permissions(&path, Permissions::from_mode(0o1777)).unwrap();
        fs::write(path.join("notes"), "somebody's").unwrap();
        let error = create_private_dir(&path).unwrap_err();
        assert!(
            matches!(error, SecretFileError::LooseDirectory { mode: 0o1777, .. }),
            "{error}"
        );
        assert_eq!(mode(&path), 0o1777);
    }

    #[test]
    fn a_file_in_the_place_of_the_directory_is_named() {
        let directory = tempdir().unwrap();
        let path = file_with_mode(&directory, 0o600);
        let error = create_private_dir(&path).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("{} is not a directory", path.display())
        );
    }

    #[test]
    fn checking_finds_what_reading_refuses_and_changes_nothing() {
        let directory = tempdir().unwrap();
        let path = file_with_mode(&directory, 0o600);
        check(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(
            check(&path),
            Err(SecretFileError::LooseFile { mode: 0o644, .. })
        ));
        let empty = directory.path().join("state");
        assert!(matches!(
            check_private_dir(&empty),
            Err(SecretFileError::Missing(_))
        ));
        fs::create_dir(&empty).unwrap();
        fs::set_permissions(&empty, Permissions::from_mode(0o755)).unwrap();
        assert!(matches!(
            check_private_dir(&empty),
            Err(SecretFileError::LooseDirectory { mode: 0o755, .. })
        ));
        assert_eq!(mode(&empty), 0o755);
    }

    #[test]
    fn a_state_directory_is_checked_with_every_key_and_the_store_in_it() {
        let directory = tempdir().unwrap();
        let state = directory.path().join("state");
        assert!(matches!(
            check_state(&state)[..],
            [SecretFileError::Missing(_)]
        ));
        create_private_dir(&state).unwrap();
        create(&state.join("wg.key"), b"secret").unwrap();
        create(&state.join("authority.key"), b"secret").unwrap();
        create_private_dir(&state.join("db")).unwrap();
        fs::write(state.join("lock"), "1").unwrap();
        assert!(check_state(&state).is_empty());

        let loosen = |name: &str, mode| {
            fs::set_permissions(state.join(name), Permissions::from_mode(mode)).unwrap();
        };
        loosen("authority.key", 0o640);
        loosen("db", 0o755);
        fs::set_permissions(&state, Permissions::from_mode(0o711)).unwrap();
        let found = check_state(&state);
        assert!(
            matches!(
                &found[..],
                [
                    SecretFileError::LooseDirectory { mode: 0o711, .. },
                    SecretFileError::LooseFile { mode: 0o640, path },
                    SecretFileError::LooseDirectory { mode: 0o755, .. },
                ] if path.ends_with("authority.key")
            ),
            "{found:?}"
        );
    }
}

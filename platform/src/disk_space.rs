//! How much room there is on a disk.

use std::io;
use std::path::Path;

use nix::sys::statvfs::statvfs;

/// What a file system has left for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskSpace {
    /// Bytes that may still be written.
    pub bytes: u64,
    /// Files that may still be made; none for file systems that have no such limit.
    pub files: Option<u64>,
}

/// The room on the file system of `path`, or of the nearest directory above it that exists.
pub fn left_at(path: &Path) -> io::Result<DiskSpace> {
    let above = path.ancestors().find(|path| path.exists());
    let found = match above {
        Some(above) if above != Path::new("") => above,
        Some(_) | None => Path::new("."),
    };
    let system = statvfs(found)?;
    #[allow(
        clippy::useless_conversion,
        reason = "some systems count with fewer bits"
    )]
    let count = |blocks_or_files| u64::from(blocks_or_files);
    Ok(DiskSpace {
        bytes: count(system.blocks_available()).saturating_mul(system.fragment_size()),
        files: (system.files() > 0).then(|| count(system.files_available())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_is_not_there_yet_has_the_room_of_the_one_above_it() {
        let directory = tempfile::tempdir().unwrap();
        let below = left_at(&directory.path().join("state").join("db")).unwrap();
        assert!(below.bytes > 0, "{below:?}");
        left_at(Path::new("nothing/here")).unwrap();
    }
}

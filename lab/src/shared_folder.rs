//! Folders of single labs in a folder that all labs share, such as `/run/ferrolb-lab`. The last lab
//! removes the shared folder, so it may disappear while another lab creates its own in it.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::Path;

/// Creates a folder in the shared folder, and the shared folder if it is missing.
///
/// # Errors
/// If a folder cannot be created.
pub fn create(shared: &Path, folder: &Path) -> io::Result<()> {
    let _lock = lock(shared)?;
    fs::create_dir_all(folder)
}

/// Removes the shared folder, if no lab has a folder in it. A mount point stays.
///
/// # Errors
/// If the folder is empty, and cannot be removed.
pub fn remove_if_empty(shared: &Path) -> io::Result<()> {
    let _lock = lock(shared)?;
    let kept = [ErrorKind::DirectoryNotEmpty, ErrorKind::NotFound, ErrorKind::ResourceBusy];
    fs::remove_dir(shared)
        .or_else(|error| if kept.contains(&error.kind()) { Ok(()) } else { Err(error) })
}

/// Locks the parent of the shared folder, so that no other lab creates or removes the shared folder
/// meanwhile.
fn lock(shared: &Path) -> io::Result<File> {
    let parent = File::open(shared.parent().unwrap_or(shared))?;
    parent.lock()?;
    Ok(parent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    /// Number of folders to create. Without the lock, one of them fails.
    const RACES: usize = 500;

    #[test]
    fn a_folder_is_created_while_another_lab_removes_the_shared_one() {
        let parent = std::env::temp_dir().join(format!("ferrolb-shared-{}", std::process::id()));
        fs::create_dir(&parent).expect("the parent can be created");
        let root = parent.join("labs");
        let ended = AtomicBool::new(false);
        let result = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !ended.load(Ordering::Relaxed) {
                    remove_if_empty(&root).expect("the folder can be removed");
                }
            });
            let result = (0..RACES).try_for_each(|_| {
                create(&root, &root.join("lab/images"))?;
                fs::remove_dir(root.join("lab/images"))?;
                fs::remove_dir(root.join("lab"))
            });
            ended.store(true, Ordering::Relaxed);
            result
        });
        fs::remove_dir_all(&parent).expect("the parent can be removed");
        result.expect("the folder is created each time");
    }
}

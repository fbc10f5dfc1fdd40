//! The socket that a gobgpd leaves behind when it is killed: the next one cannot listen there, and in its container nobody else could take it away.
//! Owned by the driver's task, gobgpd's only client.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::{fs, io};

use tokio::net::UnixStream;
use tracing::info;

/// Which file it is: its number, which the next may get again, and when that was made or changed.
type Identity = (u64, i64, i64);

/// What is known of the socket.
#[derive(Debug, Default)]
pub(super) struct Leftover {
    /// The one that was answered at last, or refused at.
    known: Option<Identity>,
}

impl Leftover {
    /// Somebody answers at it.
    pub(super) fn answered(&mut self, path: &str) {
        self.known = identity(path);
    }

    /// gobgpd is away: its socket is removed if nobody listens there. One that is new may be between being made and being listened at, and is given
    /// until the next look.
    pub(super) async fn look(&mut self, path: &str) {
        let answer = UnixStream::connect(path).await;
        if answer.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
            self.refused(path);
        }
    }

    fn refused(&mut self, path: &str) {
        let found = identity(path);
        if found.is_some() && found == self.known && fs::remove_file(path).is_ok() {
            info!(path, "removed the socket of a gobgpd that has ended");
        }
        self.known = found;
    }
}

fn identity(path: &str) -> Option<Identity> {
    let found = fs::symlink_metadata(path).ok()?;
    found.file_type().is_socket().then(|| (found.ino(), found.ctime(), found.ctime_nsec()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[tokio::test]
    async fn what_an_ended_daemon_left_is_removed_and_one_that_has_only_just_made_its_socket_keeps_it() {
        let folder = std::env::temp_dir().join(format!("ferrolb-leftover-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("gobgp.sock").display().to_string();
        let mut leftover = Leftover::default();
        leftover.look(&path).await;
        drop(UnixListener::bind(&path).unwrap());
        leftover.look(&path).await;
        assert!(fs::exists(&path).unwrap(), "seen for the first time");
        leftover.look(&path).await;
        assert!(!fs::exists(&path).unwrap(), "nobody came");
        let listening = UnixListener::bind(&path).unwrap();
        leftover.answered(&path);
        leftover.look(&path).await;
        assert!(fs::exists(&path).unwrap(), "its owner is there");
        drop(listening);
        leftover.look(&path).await;
        assert!(!fs::exists(&path).unwrap(), "its owner has answered, and does no more");
        fs::write(&path, "no socket").unwrap();
        leftover.look(&path).await;
        leftover.look(&path).await;
        assert!(fs::exists(&path).unwrap(), "it is somebody's file");
        fs::remove_dir_all(&folder).unwrap();
    }
}

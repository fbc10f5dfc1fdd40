//! Removal of a stale socket. A killed gobgpd leaves its socket file, at which the next gobgpd
//! cannot listen. Nothing in gobgpd's container could remove the file. The driver's task, gobgpd's
//! only client, owns the detector.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::{fs, io};

use tokio::net::UnixStream;
use tracing::info;

/// Identity of a socket file: the number of its inode, and the inode's change time in seconds and
/// nanoseconds. A later file may reuse the number.
type SocketFileId = (u64, i64, i64);

/// Detector of a socket file without a listener.
#[derive(Debug, Default)]
pub(super) struct StaleSocket {
    /// The socket file that accepted or refused the most recent connection attempt.
    last_tried: Option<SocketFileId>,
}

impl StaleSocket {
    /// Records that gobgpd accepted a connection at the socket.
    pub(super) fn mark_alive(&mut self, path: &str) {
        self.last_tried = file_id(path);
    }

    /// Removes the socket file if nothing listens there. The driver calls this while gobgpd is
    /// unavailable. The listener of a new socket file may not exist yet, so the file stays until
    /// the next call.
    pub(super) async fn remove_if_stale(&mut self, path: &str) {
        let connection = UnixStream::connect(path).await;
        if connection.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
            self.remove_known(path);
        }
    }

    fn remove_known(&mut self, path: &str) {
        let current = file_id(path);
        if current.is_some() && current == self.last_tried && fs::remove_file(path).is_ok() {
            info!(path, "removed the socket of a gobgpd that has stopped");
        }
        self.last_tried = current;
    }
}

fn file_id(path: &str) -> Option<SocketFileId> {
    let current = fs::symlink_metadata(path).ok()?;
    current.file_type().is_socket().then(|| (current.ino(), current.ctime(), current.ctime_nsec()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[tokio::test]
    async fn only_the_socket_file_of_an_ended_gobgpd_is_removed() {
        let directory =
            std::env::temp_dir().join(format!("ferrolb-leftover-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let path = directory.join("gobgp.sock").display().to_string();
        let mut stale_socket = StaleSocket::default();
        stale_socket.remove_if_stale(&path).await;
        drop(UnixListener::bind(&path).unwrap());
        stale_socket.remove_if_stale(&path).await;
        assert!(fs::exists(&path).unwrap(), "the file stays after one refused connection");
        stale_socket.remove_if_stale(&path).await;
        assert!(!fs::exists(&path).unwrap(), "the file is removed after two refused connections");
        let listener = UnixListener::bind(&path).unwrap();
        stale_socket.mark_alive(&path);
        stale_socket.remove_if_stale(&path).await;
        assert!(fs::exists(&path).unwrap(), "gobgpd listens at the socket");
        drop(listener);
        stale_socket.remove_if_stale(&path).await;
        assert!(!fs::exists(&path).unwrap(), "gobgpd has listened at this socket and has ended");
        fs::write(&path, "no socket").unwrap();
        stale_socket.remove_if_stale(&path).await;
        stale_socket.remove_if_stale(&path).await;
        assert!(fs::exists(&path).unwrap(), "a file that is no socket stays");
        fs::remove_dir_all(&directory).unwrap();
    }
}

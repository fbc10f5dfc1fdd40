//! Results of reads from the API server.

use anyhow::Result;

/// HTTP status for an object or a kind that the cluster does not have.
pub(crate) const NOT_FOUND: u16 = 404;
/// HTTP status for a missing permission.
const FORBIDDEN: u16 = 403;

/// The API server does not permit a request; the content is its message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no permission: {0}")]
pub struct NoPermission(pub String);

/// Returns the result of a read; `None` if the cluster does not have the object or the kind.
///
/// # Errors
/// The user may not read it ([`NoPermission`]), or the API server is unavailable.
pub fn permitted<T>(result: Result<T, kube::Error>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(kube::Error::Api(status)) if status.code == NOT_FOUND => Ok(None),
        Err(kube::Error::Api(status)) if status.code == FORBIDDEN => {
            Err(NoPermission(status.message).into())
        }
        Err(error) => Err(error.into()),
    }
}

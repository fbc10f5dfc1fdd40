//! The requests of one watch, and their answers as they arrive. Nothing of an answer is in memory
//! but the object that arrives.

use std::future::Future;
use std::io;
use std::pin::Pin;

use futures::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt};
use kube::api::{ListParams, WatchParams};
use kube::core::Request;
use kube::{Api, Client, Error, Resource};
use serde::de::Error as _;
use tokio::time::timeout;

use super::items::Items;
use super::{LIST_PAGE_OBJECTS, OBJECT_BYTES_MAX, SILENCE_MAX, WATCH_TIMEOUT};

/// The objects that a watch reads.
pub(super) struct Source {
    client: Client,
    request: Request,
    pub(super) labels: Option<String>,
    pub(super) fields: Option<String>,
}

impl Source {
    pub(super) fn new<K: Resource>(api: Api<K>) -> Self {
        let request = Request::new(api.resource_url());
        Self { client: api.into_client(), request, labels: None, fields: None }
    }

    /// The first page of a list, or the one that `token` stands for.
    pub(super) async fn page(&self, token: Option<String>) -> Result<Answer, Error> {
        let params = ListParams {
            label_selector: self.labels.clone(),
            field_selector: self.fields.clone(),
            limit: Some(LIST_PAGE_OBJECTS),
            continue_token: token,
            ..ListParams::default()
        };
        self.ask(self.request.list(&params)).await
    }

    /// The changes after this version.
    pub(super) async fn changes(&self, version: &str) -> Result<Answer, Error> {
        let params = WatchParams {
            label_selector: self.labels.clone(),
            field_selector: self.fields.clone(),
            timeout: u32::try_from(WATCH_TIMEOUT.as_secs()).ok(),
            ..WatchParams::default()
        };
        self.ask(self.request.watch(&params, version)).await
    }

    async fn ask(&self, request: Result<hyper::Request<Vec<u8>>, kube::core::request::Error>) -> Result<Answer, Error> {
        let request = request.map_err(Error::BuildRequest)?;
        Ok(Answer { body: Box::pin(self.client.request_stream(request).await?), items: Items::default() })
    }
}

/// The body of an answer.
pub(super) struct Answer {
    body: Pin<Box<dyn AsyncBufRead + Send>>,
    items: Items,
}

impl Answer {
    /// The next object of a list; none: there are no more, and [`Answer::envelope`] is complete.
    pub(super) async fn object(&mut self) -> Result<Option<Vec<u8>>, Error> {
        loop {
            let bytes = arrives(self.body.fill_buf()).await?;
            if bytes.is_empty() {
                return Ok(None);
            }
            let (read, object) =
                self.items.read(bytes).map_err(|error| Error::SerdeError(serde_json::Error::custom(error)))?;
            self.body.consume_unpin(read);
            if object.is_some() {
                return Ok(object);
            }
        }
    }

    /// All of a list but its objects.
    pub(super) fn envelope(&self) -> &[u8] {
        self.items.envelope()
    }

    /// The next line of a watch; none: the watch has ended.
    pub(super) async fn line(&mut self) -> Result<Option<Vec<u8>>, Error> {
        let mut line = Vec::new();
        let mut limited = (&mut self.body).take(OBJECT_BYTES_MAX as u64);
        arrives(limited.read_until(b'\n', &mut line)).await?;
        if line.len() == OBJECT_BYTES_MAX {
            return Err(Error::LinesCodecMaxLineLengthExceeded);
        }
        Ok((line.last() == Some(&b'\n')).then_some(line))
    }
}

async fn arrives<T>(part: impl Future<Output = io::Result<T>>) -> Result<T, Error> {
    let part = timeout(SILENCE_MAX, part).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    part.map_err(Error::ReadEvents)
}

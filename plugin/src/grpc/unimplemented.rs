//! Names the unknown service or method in Unimplemented errors, as Go's library does: clients show the text.

use std::{
    collections::BTreeSet,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tonic::{
    Code,
    codegen::http::{HeaderValue, Request, Response},
};
use tower_layer::Layer;
use tower_service::Service;

const STATUS: &str = "grpc-status";
const MESSAGE: &str = "grpc-message";

/// The names of the services.
#[derive(Clone, Debug)]
pub(super) struct ServiceNames(Arc<BTreeSet<String>>);

impl ServiceNames {
    pub(super) fn new(services: impl IntoIterator<Item = String>) -> Self {
        Self(Arc::new(services.into_iter().collect()))
    }

    /// The error text for a path like `/peer.Peer/Notify`.
    fn missing(&self, path: &str) -> String {
        match path.strip_prefix('/').unwrap_or(path).rsplit_once('/') {
            Some((service, method)) if self.0.contains(service) => {
                format!("unknown method {method} for service {service}")
            }
            Some((service, _)) => format!("unknown service {service}"),
            None => format!("malformed method name: {path:?}"),
        }
    }
}

impl<S> Layer<S> for ServiceNames {
    type Service = WithText<S>;

    fn layer(&self, inner: S) -> Self::Service {
        WithText { inner, services: self.clone() }
    }
}

/// A server with error texts for unknown services and methods.
#[derive(Clone, Debug)]
pub(super) struct WithText<S> {
    inner: S,
    services: ServiceNames,
}

impl<S, B, R> Service<Request<B>> for WithText<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<R>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (uri, services) = (request.uri().clone(), self.services.clone());
        let answer = self.inner.call(request);
        Box::pin(async move {
            let mut response = answer.await?;
            let headers = response.headers_mut();
            let is_bare =
                headers.get(STATUS).is_some_and(|status| *status == *(Code::Unimplemented as i32).to_string());
            if is_bare && !headers.contains_key(MESSAGE) {
                // `%` is the one character of a path that the text must escape.
                let text = services.missing(uri.path()).replace('%', "%25");
                if let Ok(text) = HeaderValue::from_str(&text) {
                    headers.insert(MESSAGE, text);
                }
            }
            Ok(response)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_gos() {
        let named = ServiceNames::new(["observer.Observer".to_owned()]);
        assert_eq!(named.missing("/peer.Peer/Notify"), "unknown service peer.Peer");
        assert_eq!(named.missing("/observer.Observer/Nope"), "unknown method Nope for service observer.Observer");
        assert_eq!(named.missing("/nope"), "malformed method name: \"/nope\"");
        assert_eq!(named.missing("/"), "malformed method name: \"/\"");
        assert_eq!(named.missing("/observer.Observer/"), "unknown method  for service observer.Observer");
        assert_eq!(named.missing("/observer.observer/GetFlows"), "unknown service observer.observer");
        assert_eq!(named.missing("//observer.Observer/GetFlows"), "unknown service /observer.Observer");
        assert_eq!(named.missing("/a/b/c"), "unknown service a/b");
    }
}

//! An API server in memory, for unit tests of what a real one cannot be made to show: answers that get lost, refusals
//! at one moment, another's write in between. Each test says how it answers; this is how it is asked.

use std::{
    convert::Infallible,
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use ::http::{Request, Response, StatusCode};
use kube::{Client, client::Body};
use serde_json::{Value, json};

use crate::{io::cluster::Cluster, lease::Leadership, metrics::Metrics};

/// A client of a server that answers as `serve` does. A request without a body, or with one that is no JSON, has null.
pub fn client<R>(serve: impl Fn(Request<Value>) -> R + Clone + Send + 'static) -> Client
where
    R: Future<Output = Response<Body>> + Send + 'static,
{
    let service = tower::service_fn(move |request: Request<Body>| {
        let serve = serve.clone();
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect_bytes().await.unwrap();
            let body = serde_json::from_slice(&body).unwrap_or_default();
            Ok::<_, Infallible>(serve(Request::from_parts(parts, body)).await)
        }
    });
    Client::new(service, "default")
}

/// The cluster behind `client`, written to by a leader that stays one.
pub fn cluster(client: Client) -> Cluster {
    let leadership = Leadership::lasting_until(Instant::now() + Duration::from_secs(3600));
    let metrics = Arc::new(Metrics::new(leadership.clone()));
    Cluster::new(client, leadership, metrics)
}

/// An answer.
pub fn respond(code: StatusCode, body: &Value) -> Response<Body> {
    Response::builder().status(code).body(Body::from(body.to_string().into_bytes())).unwrap()
}

/// A refusal, as the API server words it.
pub fn refuse(code: StatusCode, reason: &str) -> Response<Body> {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": reason, "reason": reason, "code": code.as_u16(),
    });
    respond(code, &status)
}

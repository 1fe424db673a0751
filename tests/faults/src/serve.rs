//! One connection: its requests, each passed on over a connection of its own.

use std::{
    sync::{
        Arc, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Result, anyhow, ensure};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use http_body_util::{BodyExt, BodyStream, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Method, Request, Response,
    body::{Frame, Incoming},
    client,
    header::DATE,
    server,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use jiff::fmt::rfc2822;
use tokio::{net::TcpStream, time::sleep};

use crate::{
    Fault, Shared,
    fault::{Act, Deed, Objects},
};

type Body = UnsyncBoxBody<Bytes, anyhow::Error>;

/// How often a held request looks whether it is still held.
const HELD: Duration = Duration::from_millis(50);

pub(crate) async fn connection(connection: TcpStream, shared: Arc<Shared>) -> Result<()> {
    if shared.fault() == Fault::Unreachable {
        return Ok(());
    }
    let acceptor = shared.certificate.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let connection = acceptor.accept(connection).await?;
    let service = service_fn(move |request| answer(request, shared.clone()));
    Ok(server::conn::http1::Builder::new().serve_connection(TokioIo::new(connection), service).await?)
}

/// What somebody does with an object that is counted, if it is one.
fn deed(request: &Request<Incoming>, shared: &Shared) -> Option<Deed> {
    let next = |count: &AtomicUsize| count.fetch_add(1, Ordering::SeqCst) + 1;
    let of = Objects::at(request.uri().path())?;
    match (request.method(), of) {
        (&Method::PUT, of) => Some(Deed::Put(of, next(&shared.puts[of.number()]))),
        (&Method::GET, Objects::Data) => Some(Deed::Read(next(&shared.reads))),
        _ => None,
    }
}

impl Shared {
    fn fault(&self) -> Fault {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps something until another fault is set.
    async fn keep_while(&self, fault: Fault) {
        self.kept.fetch_add(1, Ordering::SeqCst);
        while self.fault() == fault {
            sleep(HELD).await;
        }
    }
}

/// An error ends the connection without an answer.
async fn answer(request: Request<Incoming>, shared: Arc<Shared>) -> Result<Response<Body>> {
    let number = shared.requests.fetch_add(1, Ordering::SeqCst) + 1;
    let deed = deed(&request, &shared);
    let fault = shared.fault();
    match fault.act(number, deed) {
        Act::Pass => {
            let mut answer = pass(request, &shared, None).await?;
            if let (Fault::ClockAhead { seconds }, Some(date)) = (fault, answer.headers().get(DATE)) {
                let time = rfc2822::DateTimeParser::new().parse_timestamp(date.to_str()?)?;
                let time = time.checked_add(Duration::from_secs(seconds))?;
                let date = rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&time)?;
                answer.headers_mut().insert(DATE, date.parse()?);
            }
            Ok(answer)
        }
        Act::Crawl { bytes_per_second } => pass(request, &shared, Some(bytes_per_second)).await,
        Act::LoseAnswer => {
            let answer = pass(request, &shared, None).await?;
            ensure!(answer.status().is_success(), "the store did not take it: {}", answer.status());
            Err(anyhow!("its answer is lost"))
        }
        Act::CutAnswer => {
            let (head, body) = pass(request, &shared, None).await?.into_parts();
            let half = BodyStream::new(body)
                .take(1)
                .map_ok(|frame| frame.map_data(|data| data.slice(..data.len() / 2)));
            let cut = half.chain(stream::iter([Err(anyhow!("its answer is cut off"))]));
            Ok(Response::from_parts(head, StreamBody::new(cut).boxed_unsync()))
        }
        Act::Answer { status, code } => {
            // A store that says no has read the request all the same.
            request.into_body().collect().await?;
            let body = format!(
                "<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>a double</Message></Error>"
            );
            Ok(Response::builder().status(status).body(whole(body))?)
        }
        Act::Hold => {
            // All of it is read, so that it is noticed when its sender gives it up: then this ends where it is.
            let request = collected(request).await?;
            shared.keep_while(fault).await;
            pass(request.map(Full::new), &shared, None).await
        }
        Act::Halve => {
            let (head, body) = collected(request).await?.into_parts();
            let half = body.slice(..body.len() / 2);
            let waiting = shared.clone();
            let rest = stream::once(async move {
                waiting.keep_while(fault).await;
                Err(anyhow!("the rest of it is lost"))
            });
            let body = StreamBody::new(stream::iter([Ok(Frame::data(half))]).chain(rest));
            pass(Request::from_parts(head, body), &shared, None).await
        }
        Act::HoldAnswer => {
            let request = collected(request).await?;
            let answer = pass(request.map(Full::new), &shared, None).await?;
            shared.keep_while(fault).await;
            Ok(answer)
        }
        Act::HangUp => Err(anyhow!("nobody is there")),
    }
}

/// The request with all of its body.
async fn collected(request: Request<Incoming>) -> Result<Request<Bytes>> {
    let (head, body) = request.into_parts();
    Ok(Request::from_parts(head, body.collect().await?.to_bytes()))
}

async fn pass<B>(
    request: Request<B>,
    shared: &Shared,
    bytes_per_second: Option<usize>,
) -> Result<Response<Body>>
where
    B: hyper::body::Body<Data = Bytes, Error: Into<anyhow::Error>> + Send + 'static,
{
    let connection = shared.upstream.connect().await?;
    let (mut sender, driver) = client::conn::http1::Builder::new()
        .preserve_header_case(true)
        .handshake::<_, Body>(TokioIo::new(connection))
        .await?;
    tokio::spawn(driver);
    let (head, body) = request.into_parts();
    let body = match bytes_per_second {
        None => body.map_err(Into::into).boxed_unsync(),
        Some(bytes_per_second) => crawling(body, bytes_per_second),
    };
    let answer = sender.send_request(Request::from_parts(head, body)).await?;
    let (head, body) = answer.into_parts();
    let body = match bytes_per_second {
        None => body.map_err(anyhow::Error::from).boxed_unsync(),
        Some(bytes_per_second) => crawling(body, bytes_per_second),
    };
    // What is sent needs its connection until the last byte.
    let body = BodyStream::new(body).map(move |frame| {
        let _connection = &sender;
        frame
    });
    Ok(Response::from_parts(head, StreamBody::new(body).boxed_unsync()))
}

fn whole(body: String) -> Body {
    Full::new(Bytes::from(body)).map_err(|never| match never {}).boxed_unsync()
}

/// The same bytes, each piece after the time that it takes.
fn crawling<B>(body: B, bytes_per_second: usize) -> Body
where
    B: hyper::body::Body<Data = Bytes, Error: Into<anyhow::Error>> + Send + 'static,
{
    let piece = (bytes_per_second / 20).max(1);
    let pieces = BodyStream::new(body).flat_map(move |frame| {
        let pieces: Vec<_> = match frame.map(Frame::into_data) {
            Ok(Ok(data)) => data.chunks(piece).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect(),
            Ok(Err(_trailers)) => vec![],
            Err(error) => vec![Err(error.into())],
        };
        stream::iter(pieces)
    });
    let slow = pieces.then(move |piece| async move {
        let piece = piece?;
        sleep(Duration::from_secs_f64(piece.len() as f64 / bytes_per_second as f64)).await;
        Ok(Frame::data(piece))
    });
    StreamBody::new(slow).boxed_unsync()
}

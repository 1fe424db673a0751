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
    fault::{Act, Data},
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

/// What an agent does with an object, if it is one: what the operator puts lies elsewhere.
fn data(request: &Request<Incoming>, shared: &Shared) -> Option<Data> {
    let next = |count: &AtomicUsize| count.fetch_add(1, Ordering::SeqCst) + 1;
    if !request.uri().path().contains("/data/") {
        return None;
    }
    match *request.method() {
        Method::PUT => Some(Data::Put(next(&shared.puts))),
        Method::GET => Some(Data::Read(next(&shared.reads))),
        _ => None,
    }
}

impl Shared {
    fn fault(&self) -> Fault {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An error ends the connection without an answer.
async fn answer(request: Request<Incoming>, shared: Arc<Shared>) -> Result<Response<Body>> {
    let number = shared.requests.fetch_add(1, Ordering::SeqCst) + 1;
    let data = data(&request, &shared);
    let fault = shared.fault();
    match fault.act(number, data) {
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
            while shared.fault() == fault {
                sleep(HELD).await;
            }
            Err(anyhow!("it was held"))
        }
        Act::HangUp => Err(anyhow!("nobody is there")),
    }
}

async fn pass(
    request: Request<Incoming>,
    shared: &Shared,
    bytes_per_second: Option<usize>,
) -> Result<Response<Body>> {
    let connection = shared.upstream.connect().await?;
    let (mut sender, driver) = client::conn::http1::Builder::new()
        .preserve_header_case(true)
        .handshake::<_, Body>(TokioIo::new(connection))
        .await?;
    tokio::spawn(driver);
    let (head, body) = request.into_parts();
    let body = match bytes_per_second {
        None => body.map_err(anyhow::Error::from).boxed_unsync(),
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
fn crawling(body: Incoming, bytes_per_second: usize) -> Body {
    let piece = (bytes_per_second / 20).max(1);
    let pieces = BodyStream::new(body).flat_map(move |frame| {
        let pieces: Vec<_> = match frame.map(Frame::into_data) {
            Ok(Ok(data)) => data.chunks(piece).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect(),
            Ok(Err(_trailers)) => vec![],
            Err(error) => vec![Err(anyhow::Error::from(error))],
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

//! A proxy on the way out, as a firm has one: it knows `CONNECT`, and leads to one store whatever name is asked for.

use std::sync::{Arc, Mutex};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, copy_bidirectional},
    net::{TcpListener, TcpStream},
};

use crate::store::DOMAIN;

/// A proxy of one test.
pub struct Proxy {
    pub url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    /// One that leads to the store at `port`.
    pub async fn before(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(vec![]));
        let noted = asked.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(lead(client, port, noted.clone()));
            }
        });
        Self { url, asked }
    }

    /// What it was asked for since it was asked that last: `host:port` each.
    pub fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

async fn lead(client: TcpStream, port: u16, asked: Arc<Mutex<Vec<String>>>) -> Option<()> {
    let mut client = BufReader::new(client);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if client.read_line(&mut head).await.ok()? == 0 {
            return None;
        }
    }
    let address = head.strip_prefix("CONNECT ")?.split(' ').next()?.to_owned();
    let is_known = address.strip_suffix(":443").is_some_and(|host| host.ends_with(DOMAIN));
    asked.lock().unwrap().push(address);
    if !is_known {
        return client.write_all(b"HTTP/1.1 403 Not that one\r\n\r\n").await.ok();
    }
    let mut store = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.ok()?;
    copy_bidirectional(&mut client, &mut store).await.ok().map(drop)
}

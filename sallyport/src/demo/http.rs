//! A page and its reader: just enough HTTP/1.1 (RFC 9112) for the demo's inside host.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

/// Longest request or answer that is read, bytes.
const LIMIT: u64 = 64 * 1024;
/// Patience with a peer that does not go on.
const PATIENCE: Duration = Duration::from_secs(5);

/// Serves the page on `port` of all addresses until the process ends.
pub(crate) fn serve(port: u16) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?;
    let address = listener.local_addr()?;
    thread::Builder::new().name("page".into()).spawn(move || {
        for stream in listener.incoming().flatten() {
            // One at a time is enough for one reader; a broken request is the reader's loss.
            let _ = answer(stream);
        }
    })?;
    Ok(address)
}

fn answer(mut stream: TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let peer = stream.peer_addr()?.ip();
    let mut head = BufReader::new((&stream).take(LIMIT));
    let mut line = String::new();
    while head.read_line(&mut line)? > 0 && !line.ends_with("\r\n\r\n") && !line.ends_with("\n\n") {}
    let body = page(peer);
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )?;
    stream.flush()
}

fn page(caller: IpAddr) -> String {
    format!(
        "<!doctype html>\n<title>Behind the gateway</title>\n<h1>Behind the gateway</h1>\n\
         <p>This host is reached through the tunnel only. You came from <b>{caller}</b>.</p>\n"
    )
}

/// What a server answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Page {
    /// Status code.
    pub(crate) status: u16,
    /// Body.
    pub(crate) body: String,
}

impl Page {
    /// The title, or the start of the body.
    pub(crate) fn title(&self) -> &str {
        self.between("<title>", "</title>").unwrap_or_else(|| self.body.lines().next().unwrap_or_default())
    }

    /// The address from which the server saw the request come.
    pub(crate) fn caller(&self) -> Option<IpAddr> {
        self.between("<b>", "</b>")?.parse().ok()
    }

    fn between(&self, open: &str, close: &str) -> Option<&str> {
        let (_, rest) = self.body.split_once(open)?;
        Some(rest.split_once(close)?.0)
    }
}

/// Fetches `/` from `address`.
pub(crate) fn fetch(address: SocketAddr, timeout: Duration) -> io::Result<Page> {
    let mut stream = TcpStream::connect_timeout(&address, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    write!(stream, "GET / HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", address.ip())?;
    let mut text = String::new();
    stream.take(LIMIT).read_to_string(&mut text)?;
    parse(&text).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP"))
}

fn parse(text: &str) -> Option<Page> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    Some(Page { status, body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_says_where_its_reader_came_from() {
        let address = serve(0).unwrap();
        let page = fetch((Ipv4Addr::LOCALHOST, address.port()).into(), PATIENCE).unwrap();
        assert_eq!((page.status, page.title()), (200, "Behind the gateway"));
        assert_eq!(page.caller(), Some(Ipv4Addr::LOCALHOST.into()));
    }

    #[test]
    fn an_answer_that_is_not_http_is_refused() {
        assert_eq!(parse("SSH-2.0-OpenSSH_9.2\r\n\r\n"), None);
        assert_eq!(parse("HTTP/1.1 404 Not Found\r\nA: b\r\n\r\nno"), Some(Page { status: 404, body: "no".into() }));
    }
}

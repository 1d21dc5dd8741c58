//! Enrollment over Secure Transport, RFC 7030 and RFC 8951, as a client.

use std::time::Duration;

use base64ct::{Base64, Encoding as _};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use hyper::{Request, StatusCode};
use sallyport_ca::{EnrollToken, UnixTime};
use zeroize::Zeroizing;

use crate::http::{Answer, ask};
use crate::tls::{self, Own};
use crate::{Error, Kind, Result, Server};

/// What the authority says to a request.
#[derive(Debug)]
pub(crate) enum Reply {
    /// Certificates in DER, among them the new one.
    Certificates(Vec<Vec<u8>>),
    /// Ask again after this time.
    Later { after: Duration, text: String, busy: bool },
}

/// Where a wait is not said, and the shortest one that is obeyed.
const WAIT: Duration = Duration::from_secs(30);
const SHORTEST_WAIT: Duration = Duration::from_secs(1);

/// The authorities' certificates from whoever answers: nothing is known of him, and nothing secret is said.
pub(crate) async fn strangers_authorities(server: &Server, now: UnixTime) -> Result<Vec<Vec<u8>>> {
    authorities(server, tls::unverified(now)?, now).await
}

/// The authorities' certificates from the server that these roots vouch for (RFC 7030 §4.1).
pub(crate) async fn known_authorities(server: &Server, roots: &[Vec<u8>], now: UnixTime) -> Result<Vec<Vec<u8>>> {
    authorities(server, tls::verified(roots, None, now)?, now).await
}

async fn authorities(server: &Server, config: rustls::ClientConfig, now: UnixTime) -> Result<Vec<Vec<u8>>> {
    let request = get(server, "cacerts")?;
    let answer = ask(server, config, request, now).await?;
    match answer.status {
        StatusCode::OK => certificates(&answer.body),
        _ => Err(no_est(server, &answer)),
    }
}

/// A revocation list in DER, by its path, from the server that these roots vouch for.
pub(crate) async fn list(server: &Server, roots: &[Vec<u8>], path: &str, now: UnixTime) -> Result<Vec<u8>> {
    let request = build(Request::get(path).header(HOST, server.to_string()), Bytes::new())?;
    let answer = ask(server, tls::verified(roots, None, now)?, request, now).await?;
    match answer.status {
        StatusCode::OK => Ok(answer.body.to_vec()),
        status => Err(Error::new(
            Kind::Unreachable,
            format!("{server} answers {} instead of a revocation list", status.as_u16()),
            "ask the operator of the VPN",
        )),
    }
}

/// How the request is justified.
pub(crate) enum Proof<'a> {
    /// RFC 7030 §3.2.3; the user name says nothing.
    Token(&'a EnrollToken),
    /// None but the key of the request: its SHA-256, as people compare it.
    Key(&'a str),
    /// RFC 7030 §3.3.2, for §4.2.2.
    Certificate(Own<'a>),
}

/// Hands in a certification request (DER).
pub(crate) async fn enroll(
    server: &Server,
    roots: &[Vec<u8>],
    csr: &[u8],
    proof: &Proof<'_>,
    now: UnixTime,
) -> Result<Reply> {
    let (config, path) = match proof {
        Proof::Token(_) | Proof::Key(_) => (tls::verified(roots, None, now)?, "simpleenroll"),
        Proof::Certificate(own) => (tls::verified(roots, Some(own), now)?, "simplereenroll"),
    };
    let mut request = post(server, path, csr)?;
    if let Proof::Token(token) = proof {
        request.headers_mut().insert(AUTHORIZATION, basic(&token.to_text())?);
    }
    let answer = ask(server, config, request, now).await?;
    match answer.status {
        StatusCode::OK => Ok(Reply::Certificates(certificates(&answer.body)?)),
        StatusCode::ACCEPTED => Ok(later(&answer, false)),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => Ok(later(&answer, true)),
        status => Err(denied(server, status, &answer, proof)),
    }
}

/// The certificates (DER) of an answer.
fn certificates(body: &[u8]) -> Result<Vec<Vec<u8>>> {
    sallyport_ca::est::parse_certificates(body).map_err(|e| {
        Error::untrusted(
            format!("the server's answer is no list of certificates: {e}"),
            "check --server: it must be the enrollment endpoint of the VPN",
        )
    })
}

fn later(answer: &Answer, busy: bool) -> Reply {
    Reply::Later { after: answer.retry_after.unwrap_or(WAIT).max(SHORTEST_WAIT), text: answer.text(), busy }
}

fn denied(server: &Server, status: StatusCode, answer: &Answer, proof: &Proof<'_>) -> Error {
    let said = answer.text();
    let because = if said.is_empty() { String::new() } else { format!(": {said}") };
    if let (StatusCode::UNAUTHORIZED, Proof::Key(key)) = (status, proof) {
        return Error::new(
            Kind::Refused,
            format!("{server} does not know this machine{because}"),
            format!(
                "the operator lists its key (sallyport machine add NAME --key {key}) or its network, or lets machines wait for \
                 approval (sallyport cert profile set machine --methods token,list,approval,renewal); then run the same command again"
            ),
        );
    }
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if matches!(proof, Proof::Certificate(_)) => Error::new(
            Kind::Refused,
            format!("{server} does not renew this machine's certificate{because}"),
            "if it has lapsed or was revoked, get a new token (sallyport token create) and run sallyport enroll with it",
        ),
        StatusCode::UNAUTHORIZED => Error::new(
            Kind::Refused,
            format!("{server} does not take the token{because}"),
            "it may be wrong, used up or past its time: get a new one (sallyport token create)",
        ),
        StatusCode::FORBIDDEN => {
            Error::new(Kind::Refused, format!("{server} refuses{because}"), "ask the operator of the VPN")
        }
        StatusCode::BAD_REQUEST => Error::new(
            Kind::Refused,
            format!("{server} cannot use the request{because}"),
            "try another kind of key (--key), and ask the operator of the VPN which the profile takes",
        ),
        _ => no_est(server, answer),
    }
}

fn no_est(server: &Server, answer: &Answer) -> Error {
    let remedy = match answer.status {
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => "run the command again in a minute",
        _ => "check --server, host and port, and that the enrollment endpoint is on",
    };
    Error::new(
        Kind::Unreachable,
        format!("{server} answers {} instead of a certificate", answer.status.as_u16()),
        remedy,
    )
}

fn get(server: &Server, operation: &str) -> Result<Request<Full<Bytes>>> {
    build(Request::get(path(operation)).header(HOST, server.to_string()), Bytes::new())
}

fn post(server: &Server, operation: &str, csr: &[u8]) -> Result<Request<Full<Bytes>>> {
    let builder = Request::post(path(operation))
        .header(HOST, server.to_string())
        .header(CONTENT_TYPE, "application/pkcs10")
        .header("Content-Transfer-Encoding", "base64");
    build(builder, Bytes::from(Base64::encode_string(csr)))
}

fn path(operation: &str) -> String {
    format!("/.well-known/est/{operation}")
}

fn build(builder: hyper::http::request::Builder, body: Bytes) -> Result<Request<Full<Bytes>>> {
    let builder = builder.header(USER_AGENT, "sallyport").header(ACCEPT, "application/pkcs7-mime");
    builder.body(Full::new(body)).map_err(|e| Error::machine(format!("cannot build the request: {e}"), ""))
}

/// RFC 7617. The header's own copy is not wiped: it goes with the connection.
fn basic(password: &str) -> Result<HeaderValue> {
    let pair = Zeroizing::new(format!("token:{password}"));
    let text = Zeroizing::new(format!("Basic {}", *Zeroizing::new(Base64::encode_string(pair.as_bytes()))));
    let mut value =
        HeaderValue::from_str(&text).map_err(|e| Error::machine(format!("cannot send the token: {e}"), ""))?;
    value.set_sensitive(true);
    Ok(value)
}

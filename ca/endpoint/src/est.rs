//! EST, RFC 7030 with the corrections of RFC 8951.

use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, USER_AGENT};
use hyper::{Method, Request, StatusCode};
use sallyport_ca::KeyAlgorithm;
use sallyport_ca::cms::certs_only;
use sallyport_ca::est::{self, CERTS_ONLY, CSR_ATTRS, MULTIPART, PKCS10, csr_attributes, parse_body, server_key};
use zeroize::Zeroizing;

use base64ct::{Base64, Encoding as _};

use crate::answer::{self, Reply, closing, later, reply, text, with};
use crate::route::Est;
use crate::serve::{Kind, Visitor, body, is_get};
use crate::{Answer, Endpoint, Enrollment, Office, Proof, Protocol};

const CACERTS: &str = "application/pkcs7-mime";
const TRANSFER_ENCODING: HeaderName = HeaderName::from_static("content-transfer-encoding");

pub(crate) async fn answer<O: Office>(
    endpoint: &Endpoint<O>,
    operation: Est,
    request: Request<Incoming>,
    visitor: &Visitor,
) -> Reply {
    if visitor.kind == Kind::Plain {
        // Whoever sent a token has told it to everybody on the way; he must not get used to it.
        return closing(text(StatusCode::FORBIDDEN, "EST is spoken over HTTPS only: ask https:// at the same name"));
    }
    let protocol = match operation {
        Est::CaCerts | Est::CsrAttrs if !is_get(&request) => return answer::only("GET"),
        Est::CaCerts => {
            let authorities = endpoint.office.authorities();
            return base64(StatusCode::OK, CACERTS, &certs_only(&authorities));
        }
        Est::CsrAttrs => return base64(StatusCode::OK, CSR_ATTRS, &csr_attributes(&KeyAlgorithm::ALL)),
        _ if *request.method() != Method::POST => return answer::only("POST"),
        Est::SimpleEnroll => Protocol::Est,
        Est::SimpleReenroll => Protocol::EstRenewal,
        Est::ServerKeyGen => Protocol::EstServerKey,
    };
    enroll(endpoint, protocol, request, visitor).await.unwrap_or_else(|refusal| refusal)
}

async fn enroll<O: Office>(
    endpoint: &Endpoint<O>,
    protocol: Protocol,
    request: Request<Incoming>,
    visitor: &Visitor,
) -> Result<Reply, Reply> {
    // Asked for strictly: no page of another site can make a browser, which may hold a certificate of ours, send it.
    let kind = request.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    if !kind.split(';').next().unwrap_or("").trim().eq_ignore_ascii_case(PKCS10) {
        return Err(closing(text(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "a PKCS #10 request is expected, with `Content-Type: application/pkcs10`",
        )));
    }
    let first = !request.headers().contains_key(AUTHORIZATION);
    let proof = proof(protocol, request.headers(), visitor)?;
    let token = matches!(proof, Proof::Token(_));
    if token {
        endpoint.may_try(visitor)?;
    }
    let limits = &endpoint.limits;
    let csr = parse_body(&body(request, limits.body, limits.body_time).await?)
        .map_err(|e| text(StatusCode::BAD_REQUEST, &format!("the body cannot be read: {e}")))?;
    let csr = csr.to_vec();
    let asked = endpoint.office.enroll(Enrollment { protocol, proof, csr, source: visitor.address });
    let Ok(answer) = tokio::time::timeout(limits.answer_time, asked).await else {
        return Err(answer::busy(limits.pause.0));
    };
    if token {
        match &answer {
            Answer::Issued { .. } | Answer::Pending { .. } => endpoint.tried(visitor, true),
            Answer::Denied { authenticate: true, .. } => endpoint.tried(visitor, false),
            Answer::Denied { .. } | Answer::Invalid(_) | Answer::Busy { .. } => {}
        }
    }
    Ok(match answer {
        Answer::Denied { authenticate: true, .. } if first => {
            answer::authenticate(answer::bare(StatusCode::UNAUTHORIZED))
        }
        other => to_reply(other),
    })
}

fn to_reply(answer: Answer) -> Reply {
    match answer {
        // Nothing but the certificate, RFC 7030 §4.2.3: its chain is at /cacerts.
        Answer::Issued { certificate, private_key: None, .. } => {
            base64(StatusCode::OK, CERTS_ONLY, &certs_only(&[certificate]))
        }
        Answer::Issued { certificate, private_key: Some(key), .. } => {
            let parts = server_key(&key, &[certificate]);
            answer::uncached(reply(StatusCode::OK, MULTIPART, parts.as_bytes().to_vec()))
        }
        Answer::Pending { retry_after, .. } => later(answer::bare(StatusCode::ACCEPTED), retry_after),
        Answer::Denied { text: why, authenticate: true } => answer::authenticate(text(StatusCode::UNAUTHORIZED, &why)),
        Answer::Denied { text: why, authenticate: false } => text(StatusCode::FORBIDDEN, &why),
        Answer::Invalid(why) => text(StatusCode::BAD_REQUEST, &why),
        Answer::Busy { retry_after } => answer::busy(retry_after),
    }
}

/// Unwrapped, RFC 8951 §3.1: strongSwan's `pki` 5.9.8 takes no line ends.
fn base64(status: StatusCode, kind: &'static str, der: &[u8]) -> Reply {
    with(reply(status, kind, est::body(der)), TRANSFER_ENCODING, "base64")
}

/// Our own client says its token at once if it has one: asked for one, it would take that for a no.
const OWN_CLIENT: &str = "sallyport";

/// A token counts before a certificate, but for renewals: there it is the other way round.
fn proof(protocol: Protocol, headers: &HeaderMap, visitor: &Visitor) -> Result<Proof, Reply> {
    let token = token(headers)?.map(Proof::Token);
    let certificate = visitor.certificate.clone().map(Proof::Certificate);
    let (first, second) = if protocol == Protocol::EstRenewal { (certificate, token) } else { (token, certificate) };
    // Whoever sends an empty password has been asked, or knows that there is nothing to say.
    let says_all = headers.contains_key(AUTHORIZATION) || headers.get(USER_AGENT).is_some_and(|v| v == OWN_CLIENT);
    Ok(first.or(second).unwrap_or(if says_all { Proof::Nothing } else { Proof::Unasked }))
}

/// The password of HTTP Basic (RFC 7617); the user's name is not looked at. An empty password is none.
fn token(headers: &HeaderMap) -> Result<Option<Zeroizing<String>>, Reply> {
    let Some(value) = headers.get(AUTHORIZATION) else { return Ok(None) };
    let bad = || text(StatusCode::BAD_REQUEST, "Authorization: Basic with the token as the password is expected");
    let (scheme, credentials) = value.to_str().ok().and_then(|v| v.split_once(' ')).ok_or_else(bad)?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(bad());
    }
    let pair = Zeroizing::new(Base64::decode_vec(credentials.trim()).map_err(|_| bad())?);
    let pair = core::str::from_utf8(&pair).map_err(|_| bad())?;
    let (_, password) = pair.split_once(':').ok_or_else(bad)?;
    Ok(Some(password.trim()).filter(|p| !p.is_empty()).map(|p| Zeroizing::new(p.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(authorization: &str) -> HeaderMap {
        HeaderMap::from_iter([(AUTHORIZATION, authorization.parse().unwrap())])
    }

    fn visitor(certificate: Option<Vec<u8>>) -> Visitor {
        Visitor::at("192.0.2.1".parse().unwrap(), Kind::Tls, certificate)
    }

    #[test]
    fn the_password_is_the_token_whoever_the_user_is() {
        let token = |text: &str| token(&headers(text)).map(|t| t.map(|t| t.to_string()));
        // anyone:spt1.abc:d
        assert_eq!(token("Basic YW55b25lOnNwdDEuYWJjOmQ=").unwrap(), Some("spt1.abc:d".into()));
        assert_eq!(token("bASIC OnNwdDEuYWJj").unwrap(), Some("spt1.abc".into()));
        assert_eq!(token("Basic YW55b25lOg==").unwrap(), None);
        for bad in ["Basic", "Basic ???", "Bearer abc", "Basic YW55b25l", "Basic //79OnA="] {
            assert_eq!(token(bad).map_err(|r| r.status()), Err(StatusCode::BAD_REQUEST), "{bad}");
        }
    }

    #[test]
    fn a_token_counts_first_but_for_a_renewal() {
        let shown = visitor(Some(vec![1, 2, 3]));
        let with_token = headers("Basic OnNwdDEuYWJj");
        let kind = |protocol, headers: &HeaderMap, visitor: &Visitor| {
            format!("{:?}", proof(protocol, headers, visitor).unwrap_or(Proof::Nothing))
        };
        assert_eq!(kind(Protocol::Est, &with_token, &shown), "Token");
        assert_eq!(kind(Protocol::EstRenewal, &with_token, &shown), "Certificate");
        assert_eq!(kind(Protocol::EstRenewal, &with_token, &visitor(None)), "Token");
        assert_eq!(kind(Protocol::Est, &HeaderMap::new(), &shown), "Certificate");
    }

    #[test]
    fn whoever_shows_nothing_is_to_be_asked_unless_he_has_said_that_he_has_nothing() {
        let kind = |headers: &HeaderMap| format!("{:?}", proof(Protocol::Est, headers, &visitor(None)).unwrap());
        assert_eq!(kind(&HeaderMap::new()), "Unasked");
        assert_eq!(kind(&HeaderMap::from_iter([(USER_AGENT, "curl/8.5.0".parse().unwrap())])), "Unasked");
        // ":", as curl -u : sends it.
        assert_eq!(kind(&headers("Basic Og==")), "Nothing");
        assert_eq!(kind(&HeaderMap::from_iter([(USER_AGENT, OWN_CLIENT.parse().unwrap())])), "Nothing");
    }
}

//! The page that tells a person how to enroll a machine.

use base64ct::{Base64, Encoding as _};
use hyper::StatusCode;
use hyper::header::{CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use ring::digest;
use sallyport_ca::Certificate;

use crate::answer::{Reply, cached, reply, with};
use crate::serve::Kind;

const STYLE: &str = include_str!("page.css");
const TEMPLATE: &str = include_str!("page.html");
/// How long caches may keep it, seconds.
const AGE: u64 = 300;

/// `root` is the root's certificate, DER.
pub(crate) fn answer(root: Option<Vec<u8>>, names: &[String], kind: Kind, scep: bool) -> Reply {
    let style = Base64::encode_string(digest::digest(&digest::SHA256, STYLE.as_bytes()).as_ref());
    // Nothing but our one style sheet: whatever else got into the page would not run.
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{style}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let page = reply(StatusCode::OK, "text/html; charset=utf-8", render(root, names, kind, scep));
    let page = with(page, CONTENT_SECURITY_POLICY, &policy);
    let page = with(page, X_CONTENT_TYPE_OPTIONS, "nosniff");
    cached(with(page, REFERRER_POLICY, "no-referrer"), AGE)
}

fn render(root: Option<Vec<u8>>, names: &[String], kind: Kind, scep: bool) -> String {
    let root = root.and_then(|der| Certificate::from_der(&der).ok());
    let (subject, fingerprint) = match &root {
        Some(root) => (root.subject.clone(), in_pairs(&root.fingerprint.0)),
        None => ("none yet".into(), "none yet".into()),
    };
    let name = names.first().map_or("SERVER", String::as_str);
    let list: String = names.iter().map(|n| format!("<li><code>{}</code></li>", escape(n))).collect();
    let warning = match kind {
        Kind::Tls => "",
        Kind::Plain => {
            "<p class=\"warn\">You read this over plain HTTP: somebody on the way may have changed it. Compare the fingerprint \
             with the one that your administrator gave you.</p>"
        }
    };
    let scep = match scep {
        true => format!(
            "<dt>SCEP</dt><dd><code>http://{}/scep</code>, with the token as the challenge password and an RSA key</dd>",
            escape(name)
        ),
        false => String::new(),
    };
    fill(
        TEMPLATE,
        &[
            ("style", STYLE),
            ("warning", warning),
            ("subject", &escape(&subject)),
            ("fingerprint", &fingerprint),
            ("name", &escape(name)),
            ("names", &list),
            ("scep", &scep),
        ],
    )
}

/// Puts the values where the template says `{{key}}`, in one pass: a value is never a template.
fn fill(template: &str, values: &[(&str, &str)]) -> String {
    let mut out = String::with_capacity(template.len() + values.iter().map(|(_, v)| v.len()).sum::<usize>());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        out.push_str(before);
        let (key, after) = after.split_once("}}").unwrap_or((after, ""));
        if let Some((_, value)) = values.iter().find(|(k, _)| *k == key) {
            out.push_str(value);
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

fn in_pairs(bytes: &[u8]) -> String {
    let pairs: Vec<String> = bytes.iter().map(|b| format!("{b:02X}")).collect();
    pairs.join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_break_out_of_the_page() {
        let hostile = "<script>alert('{{style}}')</script>\"&".to_owned();
        let page = render(None, std::slice::from_ref(&hostile), Kind::Plain, true);
        assert!(!page.contains("<script"), "{page}");
        assert!(page.contains("&lt;script&gt;alert(&#39;{{style}}&#39;)"), "{page}");
        assert_eq!(page.matches(STYLE).count(), 1);
    }

    #[test]
    fn every_place_of_the_template_is_filled() {
        let page = render(None, &["vpn.example.com".into()], Kind::Tls, false);
        assert!(!page.contains("{{") && !page.contains("class=\"warn\""), "{page}");
        assert!(page.contains("https://vpn.example.com/.well-known/est/simpleenroll"), "{page}");
        assert!(!page.contains("SCEP") && !page.contains("/scep"), "{page}");
        assert!(page.contains("enroll --server vpn.example.com --root-fingerprint"), "there is a way without a token");
        assert!(
            !page.contains("-u :") && !page.contains("--userpass :TOKEN"),
            "what is on a command line everybody sees"
        );
        let page = render(None, &["vpn.example.com".into()], Kind::Tls, true);
        assert!(page.contains("http://vpn.example.com/scep"), "{page}");
    }

    #[test]
    fn the_policy_names_the_hash_of_exactly_what_stands_in_the_page() {
        let page = render(None, &[], Kind::Tls, true);
        let style =
            page.split_once("<style>").and_then(|(_, rest)| rest.split_once("</style>")).map(|(style, _)| style);
        let hash = Base64::encode_string(digest::digest(&digest::SHA256, style.unwrap().as_bytes()).as_ref());
        let reply = answer(None, &[], Kind::Tls, true);
        let policy = reply.headers().get(CONTENT_SECURITY_POLICY).unwrap().to_str().unwrap();
        assert!(policy.contains(&hash), "{policy}");
        assert!(!page.contains("style=") && !page.contains("<script") && !page.contains("src="), "{page}");
    }
}

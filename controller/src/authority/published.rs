//! Where an authority's lists, its certificate and its answers (OCSP) are to be found, as it stands in what it issues.

use std::sync::Arc;

use sallyport_ca::RevocationUrls;

use super::opened::Issuing;
use crate::app::Core;
use crate::error::Error;

/// The list of a shard; with `{shard}` for the number, what an authority makes one of for each certificate.
pub(crate) fn shard(name: &str, issuer: u64, shard: impl std::fmt::Display) -> String {
    format!("http://{name}/ca/{issuer}/{shard}.crl")
}

/// The changes of a list: of a shard, or of all that an authority has issued.
pub(crate) fn delta(name: &str, issuer: u64, shard: Option<u32>) -> String {
    match shard {
        Some(shard) => format!("http://{name}/ca/{issuer}/{shard}-delta.crl"),
        None => format!("http://{name}/ca/{issuer}-delta.crl"),
    }
}

/// What an authority (0 for the root) writes into certificates while the service has this name.
fn urls(name: &str, issuer: u64) -> RevocationUrls {
    match issuer {
        0 => RevocationUrls {
            crl: Some(format!("http://{name}/ca/root.crl")),
            ca_issuers: Some(format!("http://{name}/ca/root.cer")),
            ocsp: None, // who asks about a root's certificates hears `unauthorized`
            whole_crl: None,
        },
        number => RevocationUrls {
            crl: Some(shard(name, number, "{shard}")),
            whole_crl: Some(format!("http://{name}/ca/{number}.crl")),
            ca_issuers: Some(format!("http://{name}/ca/{number}.cer")),
            ocsp: Some(format!("http://{name}/ocsp")),
        },
    }
}

impl Core {
    /// The same issuing authority (0 for the root) with the present addresses in what it issues; where the service has no name yet, none.
    pub(super) fn publishing(&self, issuing: Issuing) -> Result<Issuing, Error> {
        if issuing.number == 0 {
            return self.with_urls_of_root(issuing);
        }
        let urls = self.node.shared().read().published_name().map(|name| urls(name, issuing.number));
        let Some(urls) = urls else { return Ok(issuing) };
        self.authorities.with_urls(&issuing, urls).map_err(|e| broken(&e))
    }

    /// The same of a root with its key, for what stands below it. The address of the root's list is that of the root in force, so another
    /// one names none.
    pub(super) fn publishing_root(&self, root: Issuing) -> Result<Issuing, Error> {
        let in_force = self.node.shared().read().root_number() == root.number;
        if in_force { self.with_urls_of_root(root) } else { Ok(root) }
    }

    /// Not kept: the root's key may be erased at any time.
    fn with_urls_of_root(&self, root: Issuing) -> Result<Issuing, Error> {
        let urls = self.node.shared().read().published_name().map(|name| urls(name, 0));
        let Some(urls) = urls else { return Ok(root) };
        let authority = root.authority.with_urls(urls).map_err(|e| broken(&e))?;
        Ok(Issuing { authority: Arc::new(authority), ..root })
    }
}

fn broken(e: &sallyport_ca::Error) -> Error {
    Error::Authority(format!("where its lists are: {e}"))
}

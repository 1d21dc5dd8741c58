//! Choosing transforms: what a peer's SA payload offers against what the configuration allows.

mod esp;
mod phase1;
#[cfg(test)]
mod tests;

use sallyport_base::Writer;

use crate::payload::{Proposal, ProtocolId, SecurityAssociation, Transform, TransformNames};

pub(crate) use esp::{EspChoice, EspOffer, EspTransform, EspWish, choose_esp};
pub use phase1::{AuthMethod, Phase1Transform};
pub(crate) use phase1::{accepted_phase1, choose_phase1, cipher_name, default_offer, no_phase1_proposal, phase1_offer};

/// Most transforms that one message of ours offers: MM1 stays below 600 bytes.
const MAX_OFFERED: usize = 12;

/// Most offers of a peer that are spelled out in a refusal.
const MAX_LISTED: usize = 24;

/// Why nothing was chosen: to be told to a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NoProposal {
    /// The algorithms would do, the encapsulation would not.
    pub(crate) encapsulation: bool,
    pub(crate) cause: String,
    pub(crate) remedy: String,
}

fn number16(t: &Transform<'_>, kind: u16) -> Option<u16> {
    t.number_of(kind).and_then(|v| u16::try_from(v).ok())
}

/// An SA payload with the one transform that was chosen, its number and attributes as they came.
fn answer_body(p: &Proposal<'_>, t: &Transform<'_>, spi: &[u8]) -> Vec<u8> {
    let answer = SecurityAssociation::new(vec![Proposal {
        number: p.number,
        protocol: p.protocol,
        spi,
        transforms: vec![t.clone()],
    }]);
    let mut w = Writer::new();
    answer.emit(&mut w);
    w.into_vec()
}

fn list<T>(items: &[T], name: impl Fn(&T) -> String) -> String {
    items.iter().map(name).collect::<Vec<_>>().join(", ")
}

fn offered(sa: &SecurityAssociation<'_>) -> String {
    let all = sa.proposals.iter().flat_map(|p| p.transforms.iter().map(move |t| (p.protocol, t)));
    let count = sa.proposals.iter().map(|p| p.transforms.len()).sum::<usize>();
    let mut text: Vec<String> = Vec::new();
    for (protocol, transform) in all.take(MAX_LISTED) {
        let names = TransformNames { protocol, transform }.to_string();
        text.push(if protocol == ProtocolId::ISAKMP || protocol == ProtocolId::ESP {
            names
        } else {
            format!("{protocol}:{names}")
        });
    }
    if count > MAX_LISTED {
        text.push(format!("and {} more", count - MAX_LISTED));
    }
    if text.is_empty() { "nothing".into() } else { text.join(", ") }
}

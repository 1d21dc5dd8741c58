//! Certificate policies, RFC 5280 §6.1, with the graph of RFC 9618 in place of the tree, which a hostile chain can make grow
//! without bound.

use std::collections::{BTreeMap, BTreeSet};

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::ParsedExtension;

use super::VerifyError;
use crate::name::{same_name, text};

/// anyPolicy, 2.5.29.32.0.
const ANY_POLICY: &[u8] = &[0x55, 0x1d, 32, 0];
/// How many policies, and how many mappings, of one certificate are looked at.
const MAX_POLICIES: usize = 64;

/// Under which policies certificates count: the inputs of RFC 5280 §6.1.1 (c) to (g). By default under any or none, so that only what
/// authorities ask of those below them matters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicySettings {
    /// Acceptable policies, each the content octets of its object identifier in DER; empty is any.
    pub acceptable: Vec<Vec<u8>>,
    /// A path must be valid for one of them.
    pub required: bool,
    /// No authority may say that a policy of its own is one of these.
    pub no_mapping: bool,
    /// anyPolicy in a certificate stands for none of them.
    pub no_any_policy: bool,
}

/// What one certificate says.
#[derive(Default)]
struct Said<'a> {
    policies: Option<BTreeSet<&'a [u8]>>,
    /// Of the issuer's domain, to those of the subject's.
    mappings: BTreeMap<&'a [u8], BTreeSet<&'a [u8]>>,
    require_explicit: Option<u32>,
    inhibit_mapping: Option<u32>,
    inhibit_any: Option<u32>,
}

/// A policy that is valid at one depth of the path.
struct Node<'a> {
    /// What it may be called one below.
    expected: BTreeSet<&'a [u8]>,
    /// The policies one above that it follows from.
    parents: BTreeSet<&'a [u8]>,
}

type Level<'a> = BTreeMap<&'a [u8], Node<'a>>;

/// Whether a path, leaf first and without its anchor, has a policy that everybody on it and the settings allow, if anybody asks
/// for one.
pub(super) fn check(path: &[&X509Certificate<'_>], settings: &PolicySettings) -> Result<(), VerifyError> {
    let said = path.iter().rev().map(|cert| read(cert)).collect::<Result<Vec<_>, _>>()?;
    let asked = settings.required || said.iter().any(|s| s.require_explicit.is_some());
    // Nobody asks. That also spares the work for all chains of our own.
    if !asked && said.iter().all(|s| s.mappings.is_empty()) {
        return Ok(());
    }
    let n = path.len();
    let start = |now: bool| if now { 0 } else { n as u32 + 1 };
    let (mut explicit, mut mapping, mut any) =
        (start(settings.required), start(settings.no_mapping), start(settings.no_any_policy));
    let root = Node { expected: BTreeSet::from([ANY_POLICY]), parents: BTreeSet::new() };
    let mut graph = vec![Level::from([(ANY_POLICY, root)])];
    for (at, (cert, said)) in path.iter().rev().zip(&said).enumerate() {
        let is_leaf = at + 1 == n;
        let refused = || VerifyError::Policy { subject: text(cert.subject()) };
        let self_issued = same_name(cert.subject(), cert.issuer());
        match &said.policies {
            Some(policies) => extend(&mut graph, policies, any > 0 || (!is_leaf && self_issued)),
            None => graph.clear(),
        }
        if is_leaf {
            explicit = explicit.saturating_sub(1);
            if said.require_explicit == Some(0) {
                explicit = 0;
            }
            if explicit == 0 && !acceptable(&graph, settings) {
                return Err(refused());
            }
            break;
        }
        if explicit == 0 && graph.is_empty() {
            return Err(refused());
        }
        if said.mappings.iter().any(|(from, to)| *from == ANY_POLICY || to.contains(ANY_POLICY)) {
            return Err(VerifyError::Malformed("a policy is mapped from or to any policy"));
        }
        map(&mut graph, said, mapping > 0);
        if !self_issued {
            for counter in [&mut explicit, &mut mapping, &mut any] {
                *counter = counter.saturating_sub(1);
            }
        }
        explicit = explicit.min(said.require_explicit.unwrap_or(explicit));
        mapping = mapping.min(said.inhibit_mapping.unwrap_or(mapping));
        any = any.min(said.inhibit_any.unwrap_or(any));
    }
    Ok(())
}

fn read<'a>(cert: &'a X509Certificate<'_>) -> Result<Said<'a>, VerifyError> {
    let mut said = Said::default();
    for extension in cert.iter_extensions() {
        match extension.parsed_extension() {
            ParsedExtension::CertificatePolicies(policies) => {
                said.policies = Some(policies.iter().take(MAX_POLICIES + 1).map(|p| p.policy_id.as_bytes()).collect());
            }
            ParsedExtension::PolicyMappings(mappings) => {
                for m in mappings.mappings.iter().take(MAX_POLICIES + 1) {
                    let to = said.mappings.entry(m.issuer_domain_policy.as_bytes()).or_default();
                    to.insert(m.subject_domain_policy.as_bytes());
                }
            }
            ParsedExtension::PolicyConstraints(c) => {
                said.require_explicit = c.require_explicit_policy;
                said.inhibit_mapping = c.inhibit_policy_mapping;
            }
            ParsedExtension::InhibitAnyPolicy(i) => said.inhibit_any = Some(i.skip_certs),
            _ => {}
        }
    }
    let mapped: usize = said.mappings.values().map(BTreeSet::len).sum();
    if said.policies.as_ref().map_or(0, BTreeSet::len).max(mapped) > MAX_POLICIES {
        return Err(VerifyError::TooMany { what: "policies in one certificate", limit: MAX_POLICIES });
    }
    Ok(said)
}

/// §6.1.3 (d): the policies of one more certificate.
fn extend<'a>(graph: &mut Vec<Level<'a>>, policies: &BTreeSet<&'a [u8]>, any_counts: bool) {
    let Some(above) = graph.last() else { return };
    let mut level = Level::new();
    let mut add = |policy: &'a [u8], parents: BTreeSet<&'a [u8]>| {
        level.entry(policy).or_insert_with(|| Node { expected: BTreeSet::from([policy]), parents });
    };
    let expecting = |policy: &[u8]| -> BTreeSet<&'a [u8]> {
        above.iter().filter(|(_, node)| node.expected.contains(policy)).map(|(name, _)| *name).collect()
    };
    for policy in policies.iter().copied().filter(|p| *p != ANY_POLICY) {
        match expecting(policy) {
            none if !none.is_empty() => add(policy, none),
            _ if above.contains_key(ANY_POLICY) => add(policy, BTreeSet::from([ANY_POLICY])),
            _ => {}
        }
    }
    if any_counts && policies.contains(ANY_POLICY) {
        let expected: BTreeSet<&[u8]> = above.values().flat_map(|node| node.expected.iter().copied()).collect();
        expected.into_iter().for_each(|policy| add(policy, expecting(policy)));
    }
    graph.push(level);
    prune(graph);
}

/// §6.1.4 (b): what the policies are called below this authority.
fn map<'a>(graph: &mut Vec<Level<'a>>, said: &Said<'a>, allowed: bool) {
    let Some(level) = graph.last_mut() else { return };
    let parents_of_any = level.get(ANY_POLICY).map(|node| node.parents.clone());
    for (from, to) in &said.mappings {
        if !allowed {
            level.remove(from);
        } else if let Some(node) = level.get_mut(from) {
            node.expected.clone_from(to);
        } else if let Some(parents) = &parents_of_any {
            level.insert(from, Node { expected: to.clone(), parents: parents.clone() });
        }
    }
    prune(graph);
}

/// Takes away what nothing follows from. A graph without nodes in the last level has none at all.
fn prune(graph: &mut Vec<Level<'_>>) {
    for at in (1..graph.len()).rev() {
        let (above, below) = graph.split_at_mut(at);
        if let (Some(above), Some(below)) = (above.last_mut(), below.first()) {
            above.retain(|policy, _| below.values().any(|node| node.parents.contains(policy)));
        }
    }
    if graph.first().is_none_or(Level::is_empty) || graph.last().is_none_or(Level::is_empty) {
        graph.clear();
    }
}

/// §6.1.5 (g): whether something is left that is acceptable. What counts is what a policy was called by the first authority that
/// named it, so nodes below anyPolicy.
fn acceptable(graph: &[Level<'_>], settings: &PolicySettings) -> bool {
    let Some(last) = graph.last() else { return false };
    if settings.acceptable.is_empty() || last.contains_key(ANY_POLICY) {
        return true;
    }
    let wanted = |policy: &[u8]| settings.acceptable.iter().any(|a| a == policy);
    graph.iter().flatten().any(|(policy, node)| wanted(policy) && node.parents.contains(ANY_POLICY))
}

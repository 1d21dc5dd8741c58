//! NIST PKITS against our own path validation: see `pkits/README.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use sallyport_ca::crl::RevocationList;
use sallyport_ca::verify::{CertPayload, PeerRole, PolicySettings, TrustStore, verify_peer};
use sallyport_ca::{Serial, UnixTime, text_of_name};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

/// 2011-04-15, within what the suite's certificates and lists are valid for.
const NOW: UnixTime = UnixTime(1_302_825_600);

type Files = BTreeMap<String, Vec<u8>>;

fn files() -> Files {
    let mut packed = Vec::new();
    flate2::read::GzDecoder::new(&include_bytes!("pkits/data.gz")[..]).read_to_end(&mut packed).unwrap();
    let (mut files, mut rest) = (Files::new(), &packed[..]);
    while let Some((len, after)) = rest.split_first() {
        let (name, after) = after.split_at(usize::from(*len));
        let (len, after) = after.split_first_chunk().unwrap();
        let (der, after) = after.split_at(u32::from_be_bytes(*len) as usize);
        files.insert(String::from_utf8(name.to_vec()).unwrap(), der.to_vec());
        rest = after;
    }
    files
}

struct Case<'a> {
    section: &'a str,
    valid: bool,
    settings: &'a str,
    end_entity: &'a str,
    others: Vec<&'a str>,
    lists: Vec<&'a str>,
}

fn cases() -> Vec<Case<'static>> {
    let lines = include_str!("pkits/tests.txt").lines().filter(|line| !line.starts_with('#'));
    let words = |text: &'static str| text.split(' ').filter(|w| *w != "-").collect();
    let case = |line: &'static str| {
        let fields: Vec<&str> = line.split(" | ").collect();
        let [section, expected, settings, end_entity, others, lists] = fields[..] else { panic!("{line}") };
        assert!(["valid", "invalid"].contains(&expected));
        let (others, lists) = (words(others), words(lists));
        Case { section, valid: expected == "valid", settings, end_entity, others, lists }
    };
    lines.map(case).collect()
}

/// The test suite's policy N is 2.16.840.1.101.3.2.1.48.N.
fn settings(text: &str) -> PolicySettings {
    let mut out = PolicySettings::default();
    for word in text.split(' ') {
        match word {
            "-" => {}
            "explicit" => out.required = true,
            "no-mapping" => out.no_mapping = true,
            "no-any" => out.no_any_policy = true,
            _ => {
                let numbers = word.strip_prefix("policies=").unwrap().split(',').map(|n| n.parse().unwrap());
                out.acceptable = numbers.map(|n| vec![0x60, 0x86, 0x48, 1, 0x65, 3, 2, 1, 48, n]).collect();
            }
        }
    }
    out
}

/// What ends a path here: `ok`, the label of a refusal, `revoked`, or `no-list` where no list of an issuer counts.
fn decide(files: &Files, case: &Case<'_>) -> String {
    let certificate = |name: &str| files[&format!("{name}.crt")].as_slice();
    let anchor = certificate("TrustAnchorRootCertificate");
    let mut trust = TrustStore::new();
    trust.add_anchor_der(anchor).unwrap();
    trust.set_policies(settings(case.settings));
    let sent: Vec<_> = [case.end_entity].iter().chain(&case.others).map(|name| certificate(name)).collect();
    let payloads: Vec<_> = sent.iter().map(|data| CertPayload { encoding: 4, data }).collect();
    // Some end entities of the suite are authorities, which are no peers.
    let (_, end_entity) = X509Certificate::from_der(certificate(case.end_entity)).unwrap();
    let as_role = |role| verify_peer(&trust, &payloads, None, role, NOW);
    let role = if end_entity.is_ca() { PeerRole::Authority } else { PeerRole::Machine };
    if role == PeerRole::Authority {
        assert!(
            as_role(PeerRole::Machine).is_err_and(|refusal| refusal.label() != "name-mismatch"),
            "{}",
            case.section
        );
    }
    if let Err(refusal) = as_role(role) {
        return refusal.label().to_owned();
    }
    // Any certificate of an issuer may sign its lists: PKITS has authorities with a key for each of the two.
    let authorities: Vec<Vec<u8>> = sent.iter().chain([&anchor]).map(|c| c.to_vec()).collect();
    let lists = case.lists.iter().chain(&["TrustAnchorRootCRL"]).map(|name| &files[&format!("{name}.crl")]);
    let counting = |der| Some((issuer_of_list(der), RevocationList::verify(der, &authorities).ok()?));
    let lists: Vec<_> = lists.filter_map(|der| counting(der)).collect();
    for der in sent {
        let (_, parsed) = X509Certificate::from_der(der).unwrap();
        let (issuer, serial) = (folded(parsed.issuer().as_raw()), Serial::from_be_bytes(parsed.raw_serial()));
        let mut own = lists.iter().filter(|(name, _)| *name == issuer).peekable();
        if own.peek().is_none() {
            return "no-list".to_owned();
        }
        if own.any(|(_, list)| list.revoked.contains_key(&serial)) {
            return "revoked".to_owned();
        }
    }
    "ok".to_owned()
}

fn issuer_of_list(der: &[u8]) -> String {
    let (_, list) = CertificateRevocationList::from_der(der).unwrap();
    folded(list.issuer().as_raw())
}

/// PKITS has names that differ in case and in spaces only.
fn folded(name: &[u8]) -> String {
    text_of_name(name).to_lowercase().replace(' ', "")
}

/// Where we differ from NIST, on purpose: section, our result, why.
const DIFFERENCES: &[(&str, &str, &str)] = &[
    ("4.1.4", "weak-signature", DSA),
    ("4.1.5", "weak-signature", DSA),
    ("4.4.11", "ok", AGE),
    ("4.4.12", "ok", AGE),
    ("4.4.14", "revoked", "serial numbers are compared as octets: -1 is taken for 255, which is revoked"),
    ("4.14.3", "ok", SCOPE),
    ("4.14.8", "ok", SCOPE),
    ("4.14.9", "ok", SCOPE),
    ("4.14.11", "ok", SCOPE),
    ("4.14.12", "ok", SCOPE),
    ("4.14.17", "ok", SCOPE),
    ("4.14.22", "no-list", INDIRECT),
    ("4.14.24", "no-list", INDIRECT),
    ("4.14.25", "no-list", INDIRECT),
    ("4.14.30", "no-list", INDIRECT),
    ("4.14.33", "no-list", INDIRECT),
    ("4.15.4", "ok", DELTA),
    ("4.15.5", "revoked", DELTA),
    ("4.15.10", "ok", DELTA),
];
const DSA: &str = "DSA and SHA-1 are not accepted";
const AGE: &str = "a list says what was revoked, however old it is: whoever reads one adds up, and asks several";
const SCOPE: &str = "a list of some of the certificates, or of some reasons, counts for what is on it; whether another one is missing \
                     is not looked at: gateways ask their own set of live serials";
const INDIRECT: &str = "lists about certificates of other authorities are not read";
const DELTA: &str = "lists of changes are not read, only the whole ones (RFC 4945 §5.2.2 advises against them)";

/// The results that the other tests may have where NIST says that the path is not valid: a refusal for a wrong reason is no
/// success.
const CAUSES: &[(&str, &[&str])] = &[
    ("4.1.", &["bad-signature", "weak-signature"]),
    ("4.2.", &["expired", "not-yet-valid"]),
    ("4.3.", &["unknown-issuer"]),
    ("4.4.", &["revoked", "no-list"]),
    ("4.5.8", &["wrong-usage"]),
    ("4.5.", &["revoked"]),
    ("4.6.1", &["wrong-usage"]),
    ("4.6.2", &["wrong-usage"]),
    ("4.6.3", &["wrong-usage"]),
    ("4.6.", &["path-too-long"]),
    ("4.7.4", &["no-list"]),
    ("4.7.5", &["no-list"]),
    ("4.7.", &["wrong-usage"]),
    ("4.8.", &["policy"]),
    ("4.9.", &["policy"]),
    ("4.10.7", &["malformed"]),
    ("4.10.8", &["malformed"]),
    ("4.10.", &["policy"]),
    ("4.11.", &["policy"]),
    ("4.12.", &["policy"]),
    ("4.13.", &["name-not-permitted"]),
    ("4.14.", &["revoked", "no-list"]),
    ("4.15.", &["revoked", "no-list"]),
    ("4.16.", &["unsupported-extension"]),
];

#[test]
fn every_test_of_nist_has_its_result_or_a_difference_with_a_reason() {
    let (files, cases) = (files(), cases());
    let sections: BTreeSet<&str> = cases.iter().map(|case| case.section).collect();
    assert_eq!((sections.len(), cases.len()), (224, 255));
    let mut differing = BTreeSet::new();
    for case in &cases {
        let (result, name) = (decide(&files, case), case.end_entity);
        match DIFFERENCES.iter().find(|(section, ..)| *section == case.section) {
            Some((section, ours, why)) => {
                differing.insert(section);
                assert_eq!(result, *ours, "{section} {name}: {why}");
                assert_ne!(result == "ok", case.valid, "{section} {name} is no difference any more");
            }
            None if case.valid => assert_eq!(result, "ok", "{} {} {name}", case.section, case.settings),
            None => {
                let of = |part: &str| case.section == part || (part.ends_with('.') && case.section.starts_with(part));
                let (_, causes) = CAUSES.iter().find(|(part, _)| of(part)).unwrap();
                assert!(causes.contains(&&*result), "{} {} {name}: {result}", case.section, case.settings);
            }
        }
    }
    assert_eq!(differing.len(), DIFFERENCES.len());
}

/// The lists of the suite that say nothing here, each with the words of its refusal.
const REFUSED_LISTS: &[(&str, &str)] = &[
    ("BadCRLIssuerNameCACRL", "none of the trusted authorities has signed it"),
    ("BadCRLSignatureCACRL", "none of the trusted authorities has signed it"),
    ("DSACACRL", "weak or unclear kind"),
    ("DSAParametersInheritedCACRL", "weak or unclear kind"),
    ("TwoCRLsCABadCRL", "none of the trusted authorities has signed it"),
    ("UnknownCRLEntryExtensionCACRL", "an entry has an extension that must be understood"),
    ("UnknownCRLExtensionCACRL", "it has an extension that must be understood"),
    ("deltaCRLCA1deltaCRL", "only the change of another one"),
    ("deltaCRLCA2deltaCRL", "only the change of another one"),
    ("deltaCRLCA3deltaCRL", "only the change of another one"),
    ("deltaCRLIndicatorNoBaseCACRL", "only the change of another one"),
    ("indirectCRLCA1CRL", "certificates of other authorities"),
    ("indirectCRLCA3cRLIssuerCRL", "certificates of other authorities"),
    ("indirectCRLCA4cRLIssuerCRL", "certificates of other authorities"),
    ("indirectCRLCA5CRL", "certificates of other authorities"),
    ("keyUsageCriticalcRLSignFalseCACRL", "none of the trusted authorities has signed it"),
    ("keyUsageNotCriticalcRLSignFalseCACRL", "none of the trusted authorities has signed it"),
    ("onlyContainsAttributeCertsCACRL", "attribute certificates"),
];

#[test]
fn every_list_of_nist_counts_or_is_refused_for_what_is_wrong_with_it() {
    let files = files();
    let mut authorities: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
    for (_, der) in files.iter().filter(|(name, _)| name.ends_with(".crt")) {
        let (_, parsed) = X509Certificate::from_der(der).unwrap();
        authorities.entry(folded(parsed.subject().as_raw())).or_default().push(der.clone());
    }
    let lists: Vec<_> = files.iter().filter_map(|(name, der)| Some((name.strip_suffix(".crl")?, der))).collect();
    assert_eq!(lists.len(), 173);
    let mut refused = 0;
    for (name, der) in lists {
        let own = authorities.get(&issuer_of_list(der)).map_or(&[][..], |list| list);
        let result = RevocationList::verify(der, own);
        match REFUSED_LISTS.iter().find(|(list, _)| *list == name) {
            Some((_, words)) => {
                refused += 1;
                let error = result.unwrap_err().to_string();
                assert!(error.contains(words), "{name}: {error}");
            }
            None => drop(result.unwrap_or_else(|error| panic!("{name}: {error}"))),
        }
        // Of a stranger, and damaged.
        assert!(RevocationList::verify(der, &[files["GoodsubCACert.crt"].clone()]).is_err() || name == "GoodsubCACRL");
        let mut damaged = der.clone();
        *damaged.last_mut().unwrap() ^= 1;
        assert!(RevocationList::verify(&damaged, own).is_err(), "{name}");
    }
    assert_eq!(refused, REFUSED_LISTS.len());
}

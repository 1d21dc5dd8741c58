use super::*;

fn constraints(permitted: &[&str], excluded: &[&str]) -> Result<NameConstraints, Error> {
    let parse = |text: &&str| if text.contains('/') { Subtree::ip(text) } else { Subtree::dns(text) };
    let list = |texts: &[&str]| texts.iter().map(parse).collect::<Result<Vec<_>, _>>();
    NameConstraints::new(list(permitted)?, list(excluded)?)
}

fn alt(text: &str) -> AltName {
    text.parse().map_or_else(|_| AltName::Dns(text.to_owned()), AltName::Ip)
}

#[test]
fn domains_are_taken_as_certificates_have_them_and_nothing_else_is() {
    for (text, domain) in [
        ("example.com", "example.com"),
        ("EXAMPLE.com", "example.com"),
        ("com", "com"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
    ] {
        assert_eq!(Subtree::dns(text).unwrap(), Subtree::Dns(domain.into()), "{text}");
    }
    for (text, why) in [
        (".example.com", "leave out the dot"),
        ("b\u{fc}cher.example", "xn--"),
        ("", "no domain"),
        (".", "leave out the dot"),
        ("example.com.", "no domain"),
        ("*.example.com", "no domain"),
        ("a b", "no domain"),
        ("10.0.0.0/8", "options of their own"),
        ("10.0.0.1", "options of their own"),
        ("2001:db8::1", "options of their own"),
        ("ann@example.com", "no domain"),
        ("a\u{202e}b", "xn--"),
    ] {
        let error = Subtree::dns(text).unwrap_err().to_string();
        assert!(error.contains(why), "{text}: {error}");
        assert!(!error.contains('\u{202e}'), "{error}");
    }
    assert!(Subtree::dns(&"a.".repeat(5_000)).unwrap_err().to_string().len() < 1_000);
}

#[test]
fn networks_are_taken_without_bits_of_hosts_and_nothing_else_is() {
    for (text, shown) in [
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("192.0.2.7", "192.0.2.7/32"),
        ("192.0.2.7/32", "192.0.2.7/32"),
        ("2001:DB8::/32", "2001:db8::/32"),
        ("::/0", "::/0"),
        ("2001:db8::1", "2001:db8::1/128"),
    ] {
        assert_eq!(Subtree::ip(text).unwrap().to_string(), shown);
    }
    for (text, why) in [
        ("10.0.0.1/8", "the network is 10.0.0.0/8"),
        ("2001:db8::1/32", "the network is 2001:db8::/32"),
        ("10.0.0.0/33", "no network"),
        ("2001:db8::/129", "no network"),
        ("10.0.0.0/", "no network"),
        ("10.0.0.0/+8", "no network"),
        ("10.0.0.0/-1", "no network"),
        ("10.0.0.0/8/8", "no network"),
        ("10.0.0.0/255.0.0.0", "no network"),
        ("10.0.0/8", "no network"),
        ("", "no network"),
        ("/8", "no network"),
        ("example.com", "no network"),
        ("::ffff:10.0.0.0/104", "IPv4 network itself"),
    ] {
        let error = Subtree::ip(text).unwrap_err().to_string();
        assert!(error.contains(why), "{text}: {error}");
    }
}

#[test]
fn names_are_placed_as_every_reader_places_them_and_the_refusal_says_which_constraint_it_was() {
    let some = constraints(&["example.com", "10.0.0.0/8"], &["secret.example.com", "10.9.0.0/16"]).unwrap();
    for (common_name, names, refused) in [
        ("vpn", &["vpn.example.com"][..], None),
        ("vpn.example.com", &["vpn.example.com", "10.1.2.3"], None),
        ("VPN.EXAMPLE.COM", &["VPN.EXAMPLE.COM"], None),
        ("example.com", &["example.com"], None),
        ("x", &["badexample.com"], Some("permitted is example.com")),
        ("x", &["example.com.evil.net"], Some("permitted is example.com")),
        ("x", &["laptop7"], Some("permitted is example.com")),
        ("x", &["vpn.example.com", "a.secret.example.com"], Some("secret.example.com is excluded")),
        ("x", &["vpn.example.com", "11.0.0.1"], Some("permitted is 10.0.0.0/8")),
        ("x", &["vpn.example.com", "10.9.1.1"], Some("10.9.0.0/16 is excluded")),
        ("x", &["vpn.example.com", "2001:db8::1"], Some("permitted is 10.0.0.0/8")),
        // The only name is an address: then the common name counts.
        ("10.1.2.3", &["10.1.2.3"], Some("common name")),
        ("gw.other.net", &["10.1.2.3"], Some("common name")),
        ("gw.example.com", &["10.1.2.3"], None),
        ("Ann Example", &[], Some("common name")),
    ] {
        let names: Vec<AltName> = names.iter().map(|n| alt(n)).collect();
        let said = some.check(common_name, &names).err().map(|e| e.to_string());
        match (&said, refused) {
            (None, None) => {}
            (Some(said), Some(why)) => assert!(said.contains(why), "{common_name}: {said}"),
            _ => panic!("{common_name} {names:?}: {said:?}"),
        }
    }
    // A kind of name that is not permitted anywhere is bound by what is excluded.
    let hosts = constraints(&["example.com"], &["::/0"]).unwrap();
    assert!(hosts.check("vpn.example.com", &[alt("vpn.example.com"), alt("192.0.2.1")]).is_ok());
    assert!(hosts.check("vpn.example.com", &[alt("vpn.example.com"), alt("2001:db8::1")]).is_err());
    assert!(NameConstraints::default().check("Ann Example", &[alt("anything")]).is_ok());
}

#[test]
fn there_are_few_of_them_and_some_permission_is_left() {
    let many: Vec<Subtree> = (0..10_000).map(|n| Subtree::Dns(format!("d{n}.example.com"))).collect();
    let error = NameConstraints::new(many.clone(), Vec::new()).unwrap_err().to_string();
    assert!(error.contains("10000 names and networks are too many: at most 64"), "{error}");
    assert!(NameConstraints::new(many[..32].to_vec(), many[32..64].to_vec()).is_ok());
    assert!(NameConstraints::new(many[..32].to_vec(), many[32..65].to_vec()).is_err());
    for (permitted, excluded) in [
        (&["a.example.com"][..], &["example.com"][..]),
        (&["example.com", "10.1.0.0/16"], &["10.0.0.0/8"]),
        (&["2001:db8::/32"], &["::/0"]),
        (&["example.com"], &["example.com"]),
    ] {
        let error = constraints(permitted, excluded).unwrap_err().to_string();
        assert!(error.contains("excluded as a whole"), "{error}");
    }
    assert_eq!(constraints(&["example.com", "EXAMPLE.com"], &[]).unwrap().permitted().len(), 1);
    let some = constraints(&["example.com"], &["10.0.0.0/8", "::/0"]).unwrap();
    assert_eq!(some.to_string(), "permitted: example.com; excluded: 10.0.0.0/8, ::/0");
    assert!(constraints(&[], &[]).unwrap().is_empty());
}

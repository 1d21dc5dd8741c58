use super::*;

fn wrong(text: &str) -> String {
    parse(text).expect_err(text)
}

#[test]
fn an_empty_file_is_the_default() {
    assert_eq!(format!("{:?}", parse("").unwrap()), format!("{:?}", Config::default()));
}

#[test]
fn an_unknown_key_is_named_with_its_place_and_what_is_allowed() {
    let error = wrong("[gateway.ike]\nport = 500\nprot = 501\n");
    assert!(error.starts_with("3:1: unknown key `prot`, expected one of `port`, `nat_t_port`"), "{error}");
    let error = wrong("[gatewy]\n");
    assert!(error.starts_with("1:2: unknown key `gatewy`, expected one of `controller`, `gateway`"), "{error}");
}

#[test]
fn a_value_of_the_wrong_type_is_named_with_its_place() {
    let error = wrong("[gateway.ike]\nport = \"500\"\n");
    assert!(error.starts_with("2:8: ") && error.contains("expected u16"), "{error}");
    let error = wrong("[log]\nlevel = 3\n");
    assert!(error.starts_with("2:9: "), "{error}");
}

#[test]
fn a_value_out_of_range_says_what_is_allowed() {
    let error = wrong("[gateway.ppp]\nmru = 9000\n");
    assert!(error.starts_with("2:7: ") && error.contains("576 to 1500"), "{error}");
    let error = wrong("[gateway.ike]\nport = 70000\n");
    assert!(error.starts_with("2:8: "), "{error}");
    let error = wrong("[gateway.ike]\n\nlifetime_seconds = 1\n");
    assert!(error.starts_with("3:20: ") && error.contains("300 to 86400"), "{error}");
}

#[test]
fn an_unknown_value_of_a_list_says_what_is_allowed() {
    let error = wrong("[gateway.ike]\ngroups = [\"modp2048\", \"modp768\"]\n");
    assert!(error.starts_with("2:23: unknown value `modp768`, expected one of `modp1024`"), "{error}");
    let error = wrong("[log]\nformat = \"xml\"\n");
    assert!(error.contains("unknown value `xml`, expected `human` or `json`"), "{error}");
}

#[test]
fn a_contradiction_between_keys_is_named_with_its_place() {
    let error = wrong("[gateway.ike]\ndpd_delay_seconds = 60\ndpd_timeout_seconds = 30\n");
    assert!(error.starts_with("3:1: [gateway.ike] dpd_timeout_seconds: must be longer"), "{error}");
}

#[test]
fn what_the_controller_finds_is_named_with_its_place() {
    let error = wrong("[controller]\n[controller.gateways]\nheartbeat_ms = 5\n");
    assert!(error.starts_with("3:1: [controller] gateways.heartbeat_ms is 5, must be 100 to 60000"), "{error}");
    let error = wrong("[log]\n[controller.limits]\nconnections = 0\n");
    assert!(error.starts_with("2:13: [controller] limits: "), "{error}");
    let error = wrong("[controller]\nlisten = \"localhost\"\n");
    assert!(error.starts_with("2:10: "), "{error}");
}

#[test]
fn text_that_is_no_toml_is_named_with_its_place() {
    let error = wrong("[gateway\n");
    assert!(error.starts_with("1:9: "), "{error}");
    assert!(wrong("name = 'a'\nname = 'b'\n").starts_with("1:1: ") || wrong("[log]\n[log]\n").starts_with("2:2: "));
}

/// The keys of a section: the parser lists them when it meets one that it does not know.
fn keys_of(section: &str) -> Vec<String> {
    let error = wrong(&format!("[{section}]\nno_such_key = 1\n"));
    let (_, list) = error.split_once("expected").unwrap_or_else(|| panic!("{section}: {error}"));
    list.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Checks that the file has each key of a section, written out or commented out.
fn check_section(section: &str, default: &toml::Table, text: &str) {
    let keys = keys_of(section);
    assert!(!keys.is_empty());
    for key in &keys {
        match default.get(key) {
            Some(toml::Value::Table(inner)) => check_section(&format!("{section}.{key}"), inner, text),
            Some(_) => {}
            None => assert!(text.contains(&format!("\n#{key} = ")), "[{section}] {key} is missing"),
        }
    }
    assert!(default.keys().all(|k| keys.contains(k)));
}

#[test]
fn the_annotated_file_has_every_key_at_its_default() {
    assert_eq!(format!("{:?}", parse(DEFAULT_TEXT).unwrap()), format!("{:?}", Config::default()));
    let default: toml::Table = toml::from_str(DEFAULT_TEXT).unwrap();
    for section in ["controller", "gateway", "log"] {
        check_section(section, default[section].as_table().unwrap(), DEFAULT_TEXT);
    }
}

#[test]
fn every_section_may_stand_alone() {
    let default: toml::Table = toml::from_str(DEFAULT_TEXT).unwrap();
    for (name, section) in default {
        let alone = toml::to_string(&toml::Table::from_iter([(name.clone(), section)])).unwrap();
        parse(&alone).unwrap_or_else(|e| panic!("[{name}]: {e}"));
    }
}

#[test]
fn the_keys_that_the_annotated_file_comments_out_are_keys() {
    let text: String = DEFAULT_TEXT
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if !rest.starts_with(' ') && rest.contains(" = ") => rest,
            _ => line,
        })
        .fold(String::new(), |text, line| text + line + "\n");
    assert_ne!(text, DEFAULT_TEXT);
    parse(&text).unwrap();
}

#[test]
fn every_line_of_the_annotated_file_fits_a_terminal() {
    for line in DEFAULT_TEXT.lines() {
        assert!(line.chars().count() <= 110, "{line}");
    }
}

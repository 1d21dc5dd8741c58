use super::*;

fn wrong(text: &str) -> String {
    parse(text).expect_err(text)
}

#[test]
fn an_empty_file_is_the_default() {
    assert_eq!(toml::to_string(&parse("").unwrap()).unwrap(), toml::to_string(&Config::default()).unwrap());
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
fn text_that_is_no_toml_is_named_with_its_place() {
    let error = wrong("[gateway\n");
    assert!(error.starts_with("1:9: "), "{error}");
    assert!(wrong("name = 'a'\nname = 'b'\n").starts_with("1:1: ") || wrong("[log]\n[log]\n").starts_with("2:2: "));
}

fn keys(value: &toml::Value, path: &str, found: &mut Vec<String>) {
    let Some(table) = value.as_table() else { return found.push(path.to_owned()) };
    for (key, value) in table {
        keys(value, &format!("{path}.{key}"), found);
    }
}

#[test]
fn the_annotated_file_has_every_key_at_its_default() {
    let text: toml::Value = toml::from_str(DEFAULT_TEXT).unwrap();
    let default = toml::Value::try_from(Config::default()).unwrap();
    assert_eq!(toml::Value::try_from(parse(DEFAULT_TEXT).unwrap()).unwrap(), default);
    let (mut annotated, mut expected) = (Vec::new(), Vec::new());
    keys(&text, "", &mut annotated);
    keys(&default, "", &mut expected);
    annotated.sort();
    expected.sort();
    assert_eq!(annotated, expected);
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

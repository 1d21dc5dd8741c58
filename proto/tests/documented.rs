//! Each service, call, message, field, enum and value of the contract carries a comment.

use std::collections::BTreeSet;

use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorProto};

// Field numbers of descriptor.proto, from which the paths in SourceCodeInfo are made.
const FILE_MESSAGE: i32 = 4;
const FILE_ENUM: i32 = 5;
const FILE_SERVICE: i32 = 6;
const MESSAGE_FIELD: i32 = 2;
const MESSAGE_NESTED: i32 = 3;
const MESSAGE_ENUM: i32 = 4;
const MESSAGE_ONEOF: i32 = 8;
const ENUM_VALUE: i32 = 2;
const SERVICE_METHOD: i32 = 2;

fn join(path: &[i32], kind: i32, index: usize) -> Vec<i32> {
    let mut path = path.to_vec();
    path.extend([kind, i32::try_from(index).expect("few items")]);
    path
}

fn enum_paths(path: Vec<i32>, e: &EnumDescriptorProto, out: &mut Vec<(Vec<i32>, String)>) {
    for (i, value) in e.value.iter().enumerate() {
        out.push((join(&path, ENUM_VALUE, i), format!("{}.{}", e.name(), value.name())));
    }
    out.push((path, e.name().to_owned()));
}

fn message_paths(path: Vec<i32>, m: &DescriptorProto, out: &mut Vec<(Vec<i32>, String)>) {
    for (i, field) in m.field.iter().enumerate() {
        out.push((join(&path, MESSAGE_FIELD, i), format!("{}.{}", m.name(), field.name())));
    }
    for (i, oneof) in m.oneof_decl.iter().enumerate().filter(|(_, o)| !o.name().starts_with('_')) {
        out.push((join(&path, MESSAGE_ONEOF, i), format!("{}.{}", m.name(), oneof.name())));
    }
    for (i, nested) in m.nested_type.iter().enumerate() {
        message_paths(join(&path, MESSAGE_NESTED, i), nested, out);
    }
    for (i, e) in m.enum_type.iter().enumerate() {
        enum_paths(join(&path, MESSAGE_ENUM, i), e, out);
    }
    out.push((path, m.name().to_owned()));
}

fn undocumented(file: &FileDescriptorProto) -> Vec<String> {
    let info = file.source_code_info.as_ref().expect("protox keeps source information");
    let commented: BTreeSet<&[i32]> =
        info.location.iter().filter(|l| l.leading_comments.is_some()).map(|l| l.path.as_slice()).collect();
    let mut paths = Vec::new();
    for (i, m) in file.message_type.iter().enumerate() {
        message_paths(join(&[], FILE_MESSAGE, i), m, &mut paths);
    }
    for (i, e) in file.enum_type.iter().enumerate() {
        enum_paths(join(&[], FILE_ENUM, i), e, &mut paths);
    }
    for (i, s) in file.service.iter().enumerate() {
        let path = join(&[], FILE_SERVICE, i);
        for (k, method) in s.method.iter().enumerate() {
            paths.push((join(&path, SERVICE_METHOD, k), format!("{}.{}", s.name(), method.name())));
        }
        paths.push((path, s.name().to_owned()));
    }
    paths.into_iter().filter(|(path, _)| !commented.contains(path.as_slice())).map(|(_, name)| name).collect()
}

#[test]
fn every_part_of_the_contract_is_documented() {
    let root = env!("CARGO_MANIFEST_DIR");
    let files = ["types", "log", "gateway", "operator", "raft", "root", "trust"]
        .map(|name| format!("{root}/sallyport/v1/{name}.proto"));
    let set = protox::compile(files, [root]).expect("the contract compiles");
    let missing: Vec<String> = set.file.iter().flat_map(undocumented).collect();
    assert!(missing.is_empty(), "no comment: {missing:?}");
}

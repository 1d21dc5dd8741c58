//! Tokens of controllers, strangers' messages, and questions that are asked twice.

use super::*;

/// A wish to join, signed as `raft.proto` says.
fn wish_to_join(token: &[u8], secret: &[u8], key: &KeyPair) -> v1::JoinRequest {
    let (public, wrap_key, name, address) = (key.public_key().spki_der().to_vec(), [9; 32], "n2", "127.0.0.1:9");
    let mut context = digest::Context::new(&digest::SHA256);
    for part in
        [b"sallyport join".as_slice(), token, &public, &wrap_key, name.as_bytes(), address.as_bytes(), b"n2.example"]
    {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    v1::JoinRequest {
        token_id: token.to_vec(),
        token: Some(v1::Secret::new(secret)),
        public_key: public,
        proof: key.sign(context.finish().as_ref(), &SystemRandom::new()).expect("signs"),
        wrap_key: wrap_key.to_vec(),
        name: name.into(),
        address: address.into(),
        names: vec!["n2.example".into()],
        level: sallyport_controller::LEVEL,
        ..Default::default()
    }
}

#[tokio::test]
async fn a_token_that_was_used_gives_nothing_to_whoever_lacks_its_secret() {
    let site = site().await;
    let mut operator = site.operator().await;
    // Made twice under one request id, as by a client whose first answer was lost: the second is good.
    let mut tokens = Vec::new();
    for _ in 0..2 {
        let mut request = tonic::Request::new(v1::CreateClusterTokenRequest { ttl_s: 60 });
        request
            .metadata_mut()
            .insert("sallyport-request-id", "0123456789abcdef0123456789abcdef".parse().expect("text"));
        let made = operator.create_cluster_token(request).await.expect("a token").into_inner();
        let text = made.token.expect("a token").into_inner();
        let text = std::str::from_utf8(&text).expect("text").strip_prefix("sallyport1.").expect("a token").to_owned();
        tokens.push(Base64UrlUnpadded::decode_vec(&text).expect("base64"));
    }
    let (id, secret) = (&tokens[1][..8], &tokens[1][8..24]);
    assert_ne!(id, &tokens[0][..8]);

    let nobody = common::connect(site.running.grpc_address(), tls(&site.running.root_certificate(), None)).await;
    let mut joining = JoiningClient::new(nobody.expect("TLS"));
    let key = KeyPair::generate(KeyAlgorithm::EcdsaP256, &SystemRandom::new()).expect("a key");
    let joined = joining.join(wish_to_join(id, secret, &key)).await.expect("joins").into_inner();
    assert!(!joined.wrapped_seal_key.is_empty());
    // The token's id is in the log and the key in the state folder of the new member: a thief of both lacks the secret.
    for guess in [&b""[..], &[0; 16]] {
        let refused = joining.join(wish_to_join(id, guess, &key)).await.expect_err("no secret");
        assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    }
    // The new member itself, whose answer was lost, gets it again; not when it was removed since.
    let again = joining.join(wish_to_join(id, secret, &key)).await.expect("the same").into_inner();
    assert_eq!(again.member_id, joined.member_id);
    operator.remove_member(v1::RemoveMemberRequest { id: joined.member_id }).await.expect("removes");
    let refused = joining.join(wish_to_join(id, secret, &key)).await.expect_err("removed");
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    site.running.shutdown().await;
}

#[tokio::test]
async fn a_strangers_message_is_not_waited_for() {
    let site = site().await;
    let machine = issue(&site.running, Profile::Machine, "laptop.example.com").await;
    let root = site.running.root_certificate();
    let nobody = common::connect(site.running.grpc_address(), tls(&root, None)).await.expect("TLS");
    let laptop = site.channel(&machine).await.expect("TLS");
    for (channel, expected) in [(nobody, Code::Unauthenticated), (laptop, Code::PermissionDenied)] {
        for method in ["Operator/AddUser", "Gateway/Authenticate", "Peer/AppendEntries", "Peer/Propose"] {
            // A message that never comes to its end; its type does not matter.
            let endless = tonic::Request::new(tokio_stream::pending::<v1::AddUserRequest>());
            let codec = tonic_prost::ProstCodec::<v1::AddUserRequest, v1::AddUserResponse>::default();
            let path = format!("/sallyport.v1.{method}").parse().expect("a path");
            let mut client = tonic::client::Grpc::new(channel.clone());
            client.ready().await.expect("open");
            let refused = client.client_streaming(endless, path, codec).await.expect_err("refused");
            assert_eq!(refused.code(), expected, "{method}: {refused}");
        }
    }
    site.running.shutdown().await;
}

/// Asks for a certificate under an id of the caller's.
async fn issue_as(mut operator: OperatorClient<Channel>, name: &str, id: u128) -> v1::IssueCertificateResponse {
    let mut request = tonic::Request::new(v1::IssueCertificateRequest {
        profile: v1::CertificateProfile::Machine.into(),
        name: name.into(),
        key_algorithm: v1::KeyAlgorithm::EcdsaP256.into(),
        ..Default::default()
    });
    request.metadata_mut().insert(REQUEST_ID, format!("{id:032x}").parse().expect("text"));
    operator.issue_certificate(request).await.expect("issues").into_inner()
}

#[tokio::test]
async fn a_certificate_that_is_asked_for_again_under_the_same_id_is_the_same_and_so_is_its_key() {
    let site = site().await;
    let operator = site.operator().await;
    let ask = |id| issue_as(operator.clone(), "laptop.example.com", id);
    // Also where the second question does not wait for the first answer.
    let (first, meanwhile) = tokio::join!(ask(1), ask(1));
    assert_eq!(meanwhile, first);
    assert_eq!(ask(1).await, first);
    let other = ask(2).await;
    assert_ne!(other.certificate, first.certificate);
    // The id is its caller's own: another operator's is another.
    let olga = issue(&site.running, Profile::Operator, "olga").await;
    let olga = OperatorClient::new(site.channel(&olga).await.expect("connects"));
    let hers = issue_as(olga, "laptop.example.com", 1).await;
    assert_ne!(hers.certificate, first.certificate);
    // A new process has it from the log.
    let site = site.restart().await;
    let mut operator = site.operator().await;
    assert_eq!(issue_as(operator.clone(), "laptop.example.com", 1).await, first);
    let request = v1::ListCertificatesRequest { name_contains: "laptop".into(), ..Default::default() };
    let listed = operator.list_certificates(request).await.expect("lists").into_inner().certificates;
    assert_eq!(listed.len(), 3);
}

//! Rows and commands of gateways' names and certificates. Numbers are part of the log: never reuse one. All since level 7.

use sallyport_proto::v1;

/// What is known of a gateway's names and certificates, whether it runs or not.
#[derive(Clone, PartialEq, prost::Message)]
pub struct GatewayIdentityRow {
    /// Public names of this gateway alone; none for those of the service.
    #[prost(string, repeated, tag = "1")]
    pub names: Vec<String>,
    /// Its certificates: one for the link, and one for each kind of key in IKE.
    #[prost(message, repeated, tag = "2")]
    pub certificates: Vec<GatewayCertificateRow>,
    /// Begin of the day in which renewals are counted, log's time.
    #[prost(uint64, tag = "3")]
    pub day_ms: u64,
    /// How many there were in it.
    #[prost(uint32, tag = "4")]
    pub renewals: u32,
    /// Serial numbers of certificates for IKE that were replaced twice and have not ended.
    #[prost(string, repeated, tag = "5")]
    pub replaced: Vec<String>,
    /// Begin of the day in which those are counted that came by a link certificate that was replaced twice, log's time.
    #[prost(uint64, tag = "6")]
    pub stray_day_ms: u64,
    /// How many there were in it.
    #[prost(uint32, tag = "7")]
    pub strays: u32,
}

/// One of a gateway's certificates.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct GatewayCertificateRow {
    /// For the link or for IKE.
    #[prost(enumeration = "v1::CertificateProfile", tag = "1")]
    pub profile: i32,
    /// For IKE: whether its key is RSA's.
    #[prost(bool, tag = "2")]
    pub rsa: bool,
    /// Serial number of the newest.
    #[prost(string, tag = "3")]
    pub serial: String,
    /// And of the one before: good until it ends, as the gateway may not use the newest yet.
    #[prost(string, tag = "4")]
    pub previous: String,
    /// When the newest is overdue with its renewal, log's time; 0 for never.
    #[prost(uint64, tag = "5")]
    pub due_ms: u64,
}

/// What proves that a gateway may have a certificate for a new key.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct GatewayProof {
    /// Serial number of its link certificate, whose key it holds.
    #[prost(string, tag = "1")]
    pub link: String,
    /// What the new one is for.
    #[prost(enumeration = "v1::CertificateProfile", tag = "2")]
    pub profile: i32,
    /// Serial number of the certificate for IKE that the new one follows, whose key it holds, too; empty for none.
    #[prost(string, tag = "3")]
    pub present: String,
    /// The link certificate was not shown in a handshake, which refuses one that has ended.
    #[prost(bool, tag = "4")]
    pub late: bool,
}

/// The public names of one gateway are set.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct SetGatewayNames {
    /// The gateway; it may have yet to come.
    #[prost(string, tag = "1")]
    pub name: String,
    /// None for those of the service.
    #[prost(string, repeated, tag = "2")]
    pub names: Vec<String>,
}

//! Assigned numbers of IKEv1 (RFC 2407 §4, RFC 2408 §3, RFC 2409 appendix A, IANA "ipsec-registry" and
//! "isakmp-registry") and of the parts of IKEv2 that are read in the clear (RFC 7296 §3, IANA "ikev2-parameters").

use sallyport_base::wire_enum;

wire_enum! {
    /// Next-payload values of both versions; they do not overlap.
    pub struct PayloadType(u8) {
        NONE = 0, SA = 1, PROPOSAL = 2, TRANSFORM = 3, KE = 4, ID = 5, CERT = 6, CERT_REQUEST = 7, HASH = 8,
        SIGNATURE = 9, NONCE = 10, NOTIFY = 11, DELETE = 12, VENDOR_ID = 13, ATTRIBUTES = 14,
        /// NAT-D of the NAT-T drafts 04 to 08; GDOI calls the number SAK.
        NAT_D_DRAFT_04 = 15,
        /// NAT-OA of the NAT-T drafts 04 to 08; GDOI calls the number SAT.
        NAT_OA_DRAFT_04 = 16,
        KEY_DOWNLOAD = 17, SEQUENCE = 18, POP = 19, NAT_D = 20, NAT_OA = 21, GAP = 22,
        SA_V2 = 33, KE_V2 = 34, ID_I = 35, ID_R = 36, CERT_V2 = 37, CERT_REQUEST_V2 = 38, AUTH = 39, NONCE_V2 = 40,
        NOTIFY_V2 = 41, DELETE_V2 = 42, VENDOR_ID_V2 = 43, TS_I = 44, TS_R = 45, SK = 46, CP = 47, EAP = 48,
        GSPM = 49, SKF = 53, PUZZLE_SOLUTION = 54,
        NAT_D_DRAFT = 130, NAT_OA_DRAFT = 131, FRAGMENT = 132,
    }
}

wire_enum! {
    /// Security protocol identifiers, RFC 2407 §4.4.1 (IKEv2 has the same first values).
    pub struct ProtocolId(u8) { NONE = 0, ISAKMP = 1, AH = 2, ESP = 3, IPCOMP = 4 }
}

wire_enum! {
    /// Attributes of a phase 1 transform, RFC 2409 appendix A.
    pub struct Phase1Attribute(u16) {
        ENCRYPTION = 1, HASH = 2, AUTHENTICATION = 3, GROUP = 4, GROUP_TYPE = 5, GROUP_PRIME = 6,
        GROUP_GENERATOR_1 = 7, GROUP_GENERATOR_2 = 8, GROUP_CURVE_A = 9, GROUP_CURVE_B = 10, LIFE_TYPE = 11,
        LIFE_DURATION = 12, PRF = 13, KEY_LENGTH = 14, FIELD_SIZE = 15, GROUP_ORDER = 16,
    }
}

wire_enum! {
    /// Attributes of a phase 2 transform, RFC 2407 §4.5.
    pub struct Phase2Attribute(u16) {
        LIFE_TYPE = 1, LIFE_DURATION = 2, GROUP = 3, ENCAPSULATION = 4, AUTHENTICATION = 5, KEY_LENGTH = 6,
        KEY_ROUNDS = 7, COMPRESS_DICTIONARY_SIZE = 8, COMPRESS_PRIVATE = 9, ECN_TUNNEL = 10, EXTENDED_SEQUENCE = 11,
        AUTH_KEY_LENGTH = 12, SIGNATURE_ENCODING = 13,
    }
}

wire_enum! {
    /// Encryption algorithms of phase 1, RFC 2409 appendix A.
    pub struct EncryptionId(u16) {
        DES_CBC = 1, IDEA_CBC = 2, BLOWFISH_CBC = 3, RC5_CBC = 4, TRIPLE_DES_CBC = 5, CAST_CBC = 6, AES_CBC = 7,
        CAMELLIA_CBC = 8,
    }
}

wire_enum! {
    /// Hash algorithms of phase 1, RFC 2409 appendix A.
    pub struct HashId(u16) { MD5 = 1, SHA1 = 2, TIGER = 3, SHA2_256 = 4, SHA2_384 = 5, SHA2_512 = 6 }
}

wire_enum! {
    /// Authentication methods of phase 1: RFC 2409 appendix A, RFC 4754, and the private numbers of XAUTH.
    pub struct AuthenticationId(u16) {
        PRE_SHARED_KEY = 1, DSS_SIGNATURES = 2, RSA_SIGNATURES = 3, RSA_ENCRYPTION = 4, RSA_REVISED_ENCRYPTION = 5,
        ECDSA_SHA256_P256 = 9, ECDSA_SHA384_P384 = 10, ECDSA_SHA512_P521 = 11,
        HYBRID_INIT_RSA = 64_221, HYBRID_RESP_RSA = 64_222,
        XAUTH_INIT_PRE_SHARED = 65_001, XAUTH_RESP_PRE_SHARED = 65_002, XAUTH_INIT_RSA = 65_005, XAUTH_RESP_RSA = 65_006,
    }
}

wire_enum! {
    /// Diffie-Hellman groups, IANA "Group Description"; the same numbers in both versions.
    pub struct GroupId(u16) {
        NONE = 0, MODP_768 = 1, MODP_1024 = 2, EC2N_155 = 3, EC2N_185 = 4, MODP_1536 = 5, MODP_2048 = 14, MODP_3072 = 15,
        MODP_4096 = 16, MODP_6144 = 17, MODP_8192 = 18, ECP_256 = 19, ECP_384 = 20, ECP_521 = 21, MODP_1024_160 = 22,
        MODP_2048_224 = 23, MODP_2048_256 = 24, ECP_192 = 25, ECP_224 = 26, BRAINPOOL_224 = 27, BRAINPOOL_256 = 28,
        BRAINPOOL_384 = 29, BRAINPOOL_512 = 30, CURVE25519 = 31, CURVE448 = 32, ML_KEM_512 = 35, ML_KEM_768 = 36,
        ML_KEM_1024 = 37,
    }
}

wire_enum! {
    /// Unit of a lifetime, RFC 2409 appendix A and RFC 2407 §4.5.
    pub struct LifeType(u16) { SECONDS = 1, KILOBYTES = 2 }
}

wire_enum! {
    /// ISAKMP transform identifiers, RFC 2407 §4.4.2.
    pub struct IsakmpTransformId(u8) { KEY_IKE = 1 }
}

wire_enum! {
    /// ESP transform identifiers, RFC 2407 §4.4.4, RFC 3602, RFC 4106 and IANA.
    pub struct EspTransformId(u8) {
        DES_IV64 = 1, DES = 2, TRIPLE_DES = 3, RC5 = 4, IDEA = 5, CAST = 6, BLOWFISH = 7, TRIPLE_IDEA = 8,
        DES_IV32 = 9, RC4 = 10, NULL = 11, AES_CBC = 12, AES_CTR = 13, AES_CCM_8 = 14, AES_CCM_12 = 15, AES_CCM_16 = 16,
        AES_GCM_8 = 18, AES_GCM_12 = 19, AES_GCM_16 = 20, SEED_CBC = 21, CAMELLIA = 22, NULL_AUTH_AES_GMAC = 23,
    }
}

wire_enum! {
    /// AH transform identifiers, RFC 2407 §4.4.3.
    pub struct AhTransformId(u8) { MD5 = 2, SHA1 = 3, DES = 4, SHA2_256 = 5, SHA2_384 = 6, SHA2_512 = 7 }
}

wire_enum! {
    /// IPCOMP transform identifiers, RFC 2407 §4.4.5.
    pub struct IpcompTransformId(u8) { OUI = 1, DEFLATE = 2, LZS = 3 }
}

wire_enum! {
    /// Authentication algorithm of an ESP or AH SA, RFC 2407 §4.5 and IANA.
    pub struct EspAuthenticationId(u16) {
        HMAC_MD5 = 1, HMAC_SHA1 = 2, DES_MAC = 3, KPDK = 4, HMAC_SHA2_256 = 5, HMAC_SHA2_384 = 6, HMAC_SHA2_512 = 7,
        HMAC_RIPEMD = 8, AES_XCBC_MAC = 9, SIG_RSA = 10, AES_128_GMAC = 11, AES_192_GMAC = 12, AES_256_GMAC = 13,
    }
}

wire_enum! {
    /// Encapsulation modes, RFC 2407 §4.5, RFC 3947 §5.1 and the NAT-T drafts 00 to 03.
    pub struct EncapsulationMode(u16) {
        TUNNEL = 1, TRANSPORT = 2, UDP_TUNNEL = 3, UDP_TRANSPORT = 4, UDP_TUNNEL_DRAFT = 61_443,
        UDP_TRANSPORT_DRAFT = 61_444,
    }
}

wire_enum! {
    /// Identification types, RFC 2407 §4.6.2.1.
    pub struct IdType(u8) {
        IPV4_ADDR = 1, FQDN = 2, USER_FQDN = 3, IPV4_ADDR_SUBNET = 4, IPV6_ADDR = 5, IPV6_ADDR_SUBNET = 6,
        IPV4_ADDR_RANGE = 7, IPV6_ADDR_RANGE = 8, DER_ASN1_DN = 9, DER_ASN1_GN = 10, KEY_ID = 11,
    }
}

wire_enum! {
    /// Certificate encodings, RFC 2408 §3.9 (IKEv2 has the same values).
    pub struct CertEncoding(u8) {
        NONE = 0, PKCS7 = 1, PGP = 2, DNS_SIGNED_KEY = 3, X509_SIGNATURE = 4, X509_KEY_EXCHANGE = 5, KERBEROS = 6,
        CRL = 7, ARL = 8, SPKI = 9, X509_ATTRIBUTE = 10, RAW_RSA = 11, HASH_AND_URL = 12, BUNDLE_HASH_AND_URL = 13,
        OCSP = 14, RAW_PUBLIC_KEY = 15,
    }
}

wire_enum! {
    /// Notify message types of IKEv1: RFC 2408 §3.14.1, RFC 2407 §4.6.3, RFC 3706 §5.3.
    pub struct NotifyType(u16) {
        INVALID_PAYLOAD_TYPE = 1, DOI_NOT_SUPPORTED = 2, SITUATION_NOT_SUPPORTED = 3, INVALID_COOKIE = 4,
        INVALID_MAJOR_VERSION = 5, INVALID_MINOR_VERSION = 6, INVALID_EXCHANGE_TYPE = 7, INVALID_FLAGS = 8,
        INVALID_MESSAGE_ID = 9, INVALID_PROTOCOL_ID = 10, INVALID_SPI = 11, INVALID_TRANSFORM_ID = 12,
        ATTRIBUTES_NOT_SUPPORTED = 13, NO_PROPOSAL_CHOSEN = 14, BAD_PROPOSAL_SYNTAX = 15, PAYLOAD_MALFORMED = 16,
        INVALID_KEY_INFORMATION = 17, INVALID_ID_INFORMATION = 18, INVALID_CERT_ENCODING = 19, INVALID_CERTIFICATE = 20,
        CERT_TYPE_UNSUPPORTED = 21, INVALID_CERT_AUTHORITY = 22, INVALID_HASH_INFORMATION = 23,
        AUTHENTICATION_FAILED = 24, INVALID_SIGNATURE = 25, ADDRESS_NOTIFICATION = 26, NOTIFY_SA_LIFETIME = 27,
        CERTIFICATE_UNAVAILABLE = 28, UNSUPPORTED_EXCHANGE_TYPE = 29, UNEQUAL_PAYLOAD_LENGTHS = 30,
        CONNECTED = 16_384, RESPONDER_LIFETIME = 24_576, REPLAY_STATUS = 24_577, INITIAL_CONTACT = 24_578,
        R_U_THERE = 36_136, R_U_THERE_ACK = 36_137, LOAD_BALANCE = 40_501, HEARTBEAT = 40_503,
    }
}

wire_enum! {
    /// Notify message types of IKEv2, RFC 7296 §3.10.1 and IANA.
    pub struct NotifyTypeV2(u16) {
        UNSUPPORTED_CRITICAL_PAYLOAD = 1, INVALID_IKE_SPI = 4, INVALID_MAJOR_VERSION = 5, INVALID_SYNTAX = 7,
        INVALID_MESSAGE_ID = 9, INVALID_SPI = 11, NO_PROPOSAL_CHOSEN = 14, INVALID_KE_PAYLOAD = 17,
        AUTHENTICATION_FAILED = 24, SINGLE_PAIR_REQUIRED = 34, NO_ADDITIONAL_SAS = 35, INTERNAL_ADDRESS_FAILURE = 36,
        FAILED_CP_REQUIRED = 37, TS_UNACCEPTABLE = 38, INVALID_SELECTORS = 39, UNACCEPTABLE_ADDRESSES = 40,
        UNEXPECTED_NAT_DETECTED = 41, TEMPORARY_FAILURE = 43, CHILD_SA_NOT_FOUND = 44,
        INITIAL_CONTACT = 16_384, SET_WINDOW_SIZE = 16_385, ADDITIONAL_TS_POSSIBLE = 16_386, IPCOMP_SUPPORTED = 16_387,
        NAT_DETECTION_SOURCE_IP = 16_388, NAT_DETECTION_DESTINATION_IP = 16_389, COOKIE = 16_390,
        USE_TRANSPORT_MODE = 16_391, HTTP_CERT_LOOKUP_SUPPORTED = 16_392, REKEY_SA = 16_393,
        ESP_TFC_PADDING_NOT_SUPPORTED = 16_394, NON_FIRST_FRAGMENTS_ALSO = 16_395, MOBIKE_SUPPORTED = 16_396,
        ADDITIONAL_IP4_ADDRESS = 16_397, ADDITIONAL_IP6_ADDRESS = 16_398, NO_ADDITIONAL_ADDRESSES = 16_399,
        UPDATE_SA_ADDRESSES = 16_400, COOKIE2 = 16_401, NO_NATS_ALLOWED = 16_402, AUTH_LIFETIME = 16_403,
        MULTIPLE_AUTH_SUPPORTED = 16_404, ANOTHER_AUTH_FOLLOWS = 16_405, REDIRECT_SUPPORTED = 16_406, REDIRECT = 16_407,
        REDIRECTED_FROM = 16_408, TICKET_LT_OPAQUE = 16_409, TICKET_REQUEST = 16_410, TICKET_ACK = 16_411,
        TICKET_NACK = 16_412, TICKET_OPAQUE = 16_413, LINK_ID = 16_414, CHILDLESS_IKEV2_SUPPORTED = 16_418,
        QUICK_CRASH_DETECTION = 16_419, IKEV2_FRAGMENTATION_SUPPORTED = 16_430, SIGNATURE_HASH_ALGORITHMS = 16_431,
        USE_PPK = 16_435, PPK_IDENTITY = 16_436, NO_PPK_AUTH = 16_437, INTERMEDIATE_EXCHANGE_SUPPORTED = 16_438,
        ADDITIONAL_KEY_EXCHANGE = 16_441,
    }
}

wire_enum! {
    /// Transform types of IKEv2, RFC 7296 §3.3.2.
    pub struct TransformTypeV2(u8) { ENCR = 1, PRF = 2, INTEG = 3, DH = 4, ESN = 5, ADDKE1 = 6, ADDKE2 = 7 }
}

wire_enum! {
    /// Encryption transforms of IKEv2, IANA.
    pub struct EncrV2(u16) {
        DES_IV64 = 1, DES = 2, TRIPLE_DES = 3, RC5 = 4, IDEA = 5, CAST = 6, BLOWFISH = 7, NULL = 11, AES_CBC = 12,
        AES_CTR = 13, AES_CCM_8 = 14, AES_CCM_12 = 15, AES_CCM_16 = 16, AES_GCM_8 = 18, AES_GCM_12 = 19,
        AES_GCM_16 = 20, NULL_AUTH_AES_GMAC = 21, CAMELLIA_CBC = 23, CAMELLIA_CTR = 24, CHACHA20_POLY1305 = 28,
    }
}

wire_enum! {
    /// Pseudo-random functions of IKEv2, IANA.
    pub struct PrfV2(u16) {
        HMAC_MD5 = 1, HMAC_SHA1 = 2, HMAC_TIGER = 3, AES128_XCBC = 4, HMAC_SHA2_256 = 5, HMAC_SHA2_384 = 6,
        HMAC_SHA2_512 = 7, AES128_CMAC = 8,
    }
}

wire_enum! {
    /// Integrity transforms of IKEv2, IANA.
    pub struct IntegV2(u16) {
        NONE = 0, HMAC_MD5_96 = 1, HMAC_SHA1_96 = 2, DES_MAC = 3, KPDK_MD5 = 4, AES_XCBC_96 = 5, HMAC_MD5_128 = 6,
        HMAC_SHA1_160 = 7, AES_CMAC_96 = 8, AES_128_GMAC = 9, AES_192_GMAC = 10, AES_256_GMAC = 11,
        HMAC_SHA2_256_128 = 12, HMAC_SHA2_384_192 = 13, HMAC_SHA2_512_256 = 14,
    }
}

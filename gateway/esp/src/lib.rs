//! ESP (RFC 4303): packets, security associations, anti-replay, UDP encapsulation.
//!
//! No sockets, no clock, no allocation per packet. The data plane owns the SAs (one writer each), looks an inbound one
//! up by [`spi`], and hands packets over in place:
//!
//! * [`InboundSa::open`] takes an ESP packet and says where in it the payload lies;
//! * [`OutboundSa::seal`] takes a payload with [`HEAD_ROOM`] before and [`TAIL_ROOM`] behind it and says where the ESP
//!   packet lies;
//! * [`InboundSa::open_batch`] and [`OutboundSa::seal_batch`] do so for many [`Packet`]s of one SA.
//!
//! What is inside is not looked at: transport mode hands out the bytes behind the Next Header number (UDP 17 for L2TP).
//! Lifetimes in seconds belong to the control plane; those in packets and bytes are counted here ([`SaLimits`],
//! [`Lifetime`]).
//!
//! An SA is 0.5 to 1.2 KiB, by suite; the test `sizes_stay_small` states the bounds.
//!
//! ```
//! use sallyport_crypto::{Rng, suite::EspSuite};
//! use sallyport_esp::{HEAD_ROOM, InboundSa, OutboundSa, SaConfig, TAIL_ROOM};
//!
//! let suite = EspSuite::AES256_CBC_SHA1;
//! let keys = suite.split_keymat(&vec![7; suite.keymat_len()]).unwrap();
//! let config = SaConfig::new(0xc0de_0001, keys);
//! let mut outbound = OutboundSa::new(&config, &mut Rng::from_seed([0; 32]));
//! let mut inbound = InboundSa::new(&config);
//!
//! let mut buf = vec![0; HEAD_ROOM + 5 + TAIL_ROOM];
//! buf[HEAD_ROOM..HEAD_ROOM + 5].copy_from_slice(b"hello");
//! let packet = outbound.seal(&mut buf, HEAD_ROOM..HEAD_ROOM + 5, 17).unwrap();
//!
//! let opened = inbound.open(&mut buf[packet.clone()]).unwrap();
//! assert_eq!(&buf[packet][opened.payload()], b"hello");
//! assert_eq!(opened.next_header, 17);
//! ```

mod batch;
mod drops;
mod inbound;
mod outbound;
mod packet;
mod replay;
mod sa;
mod udp_encap;

pub use batch::Packet;
pub use drops::{DropCounters, EspDrop};
pub use inbound::{InboundSa, Opened};
pub use outbound::OutboundSa;
pub use packet::{EspHeader, HEAD_ROOM, MIN_SPI, NO_NEXT_HEADER, TAIL_ROOM, max_payload_len, sealed_len, spi};
pub use replay::ReplayWindow;
pub use sa::{Lifetime, SaConfig, SaLimits, Stats};
pub use udp_encap::{KEEPALIVE, NON_ESP_MARKER, UdpEncap, classify};

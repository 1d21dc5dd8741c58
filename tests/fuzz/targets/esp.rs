//! ESP: arbitrary packets for each suite, sealed packets with bytes changed, and the demultiplexer of port 4500.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sallyport_crypto::Rng;
use sallyport_crypto::suite::EspSuite;
use sallyport_esp::{HEAD_ROOM, InboundSa, OutboundSa, SaConfig, TAIL_ROOM, classify};

const SPI: u32 = 0x1234_5678;

fn config(suite: EspSuite) -> Option<SaConfig> {
    let keys = suite.split_keymat(&vec![0x42; suite.keymat_len()])?;
    Some(SaConfig::new(SPI, keys))
}

fuzz_target!(|data: &[u8]| {
    let _ = classify(data);
    let Some(([choice, at, flip], data)) = data.split_first_chunk::<3>() else { return };
    let suites: Vec<EspSuite> = EspSuite::all().collect();
    let Some(config) = config(suites[usize::from(*choice) % suites.len()]) else { return };

    let mut sa = InboundSa::new(&config);
    let mut packet = data.to_vec();
    let _ = sa.open(&mut packet);

    // What we sealed ourselves opens to the same bytes; with one bit changed it never opens.
    let mut buf = vec![0; HEAD_ROOM];
    buf.extend_from_slice(data);
    buf.resize(buf.len() + TAIL_ROOM, 0);
    let mut out = OutboundSa::new(&config, &mut Rng::from_seed([1; 32]));
    let Ok(sealed) = out.seal(&mut buf, HEAD_ROOM..HEAD_ROOM + data.len(), 17) else { return };
    let mut packet = buf[sealed].to_vec();
    let mut broken = packet.clone();
    let opened = sa.open(&mut packet).expect("opens");
    assert_eq!(&packet[opened.payload()], data);
    let at = usize::from(*at) % broken.len();
    if *flip != 0 {
        broken[at] ^= flip;
        assert!(InboundSa::new(&config).open(&mut broken).is_err());
    }
});

//! GF(2^8) with the polynomial x^8 + x^4 + x^3 + x + 1 (FIPS 197 §4.2), without tables: what a secret byte is must not
//! decide which memory is read, nor which way a branch goes.

/// `a * b`. The work is the same for all values.
pub(super) const fn mul(a: u8, b: u8) -> u8 {
    let (mut a, mut product, mut bit) = (a, 0, 0);
    while bit < 8 {
        product ^= a & mask(b >> bit);
        a = (a << 1) ^ (0x1b & mask(a >> 7));
        bit += 1;
    }
    product
}

/// `1 / a`, and 0 for 0: a^254, since a^255 is 1.
pub(super) const fn inverse(a: u8) -> u8 {
    let (mut square, mut out, mut bit) = (a, 1, 1);
    while bit < 8 {
        square = mul(square, square);
        out = mul(out, square);
        bit += 1;
    }
    out
}

/// All ones where the lowest bit is set. The barrier keeps the compiler from making a branch of it.
const fn mask(bit: u8) -> u8 {
    core::hint::black_box(bit & 1).wrapping_neg()
}

/// What the value at `index` counts when the polynomial through the values at all of `indices` is taken at `x`
/// (Lagrange). The indices are no secret; they must differ from each other.
pub(super) fn weight(indices: &[u8], index: u8, x: u8) -> u8 {
    let others = indices.iter().filter(|other| **other != index);
    others.fold(1, |product, other| mul(product, mul(x ^ other, inverse(index ^ other))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_those_of_fips_197_section_4_2() {
        assert_eq!((mul(0x57, 0x83), mul(0x57, 0x13)), (0xc1, 0xfe));
        assert_eq!([0x02, 0x04, 0x08, 0x10].map(|b| mul(0x57, b)), [0xae, 0x47, 0x8e, 0x07]);
    }

    #[test]
    fn it_is_a_field() {
        assert_eq!(inverse(0), 0);
        for a in 1..=255 {
            assert_eq!((mul(a, inverse(a)), mul(a, 1), mul(a, 0)), (1, a, 0));
            for b in 0..=255 {
                assert_eq!(mul(a, b), mul(b, a));
                for c in [0x01, 0x53, 0xca, 0xff] {
                    assert_eq!(mul(a, b ^ c), mul(a, b) ^ mul(a, c));
                }
            }
        }
    }
}

//! The attributes of a netlink message.

use zerocopy::byteorder::NativeEndian;
use zerocopy::{FromBytes, Immutable, KnownLayout, U16, Unaligned};

/// `NLA_TYPE_MASK`: the upper two bits of a type are flags.
const TYPE: u16 = 0x3fff;

/// `struct nlattr`.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct NlAttr {
    len: U16<NativeEndian>,
    kind: U16<NativeEndian>,
}

/// The attributes in order, each with its type. They end where one is cut off.
///
/// The iterator of netlink-packet-core took a third of a sweep's time in user space: it checks each field by itself.
pub(super) struct Attributes<'a>(pub &'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let bytes = std::mem::take(&mut self.0);
        let (header, _) = NlAttr::ref_from_prefix(bytes).ok()?;
        let length = usize::from(header.len.get());
        let value = bytes.get(size_of::<NlAttr>()..length)?;
        // attributes are aligned to 4 bytes; the last one may lack its padding
        self.0 = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((header.kind.get() & TYPE, value))
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::NlasIterator;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_have_the_attributes_that_netlink_packet_core_finds(
            mut bytes in prop::collection::vec(any::<u8>(), 0..200),
            lengths in prop::collection::vec((0_usize..200, 0_u16..24), 0..8),
        ) {
            // lengths that random bytes rarely have
            for (at, length) in lengths {
                if let Some(place) = bytes.get_mut(at / 4 * 4..at / 4 * 4 + 2) {
                    place.copy_from_slice(&length.to_ne_bytes());
                }
            }
            let theirs: Vec<_> = NlasIterator::new(&bytes[..])
                .map_while(Result::ok)
                .map(|attribute| (attribute.kind(), attribute.value().to_vec()))
                .collect();
            let ours: Vec<_> = Attributes(&bytes).map(|(kind, value)| (kind, value.to_vec())).collect();
            prop_assert_eq!(ours, theirs);
        }
    }
}

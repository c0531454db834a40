//! Generic netlink, as far as it takes to read the timeouts of IPVS. Layouts are those of `linux/genetlink.h` and
//! `linux/ip_vs.h`.

use netlink_packet_core::{NLM_F_REQUEST, NLMSG_ERROR};

use super::attributes::Attributes;

const GENL_ID_CTRL: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const IPVS_CMD_GET_CONFIG: u8 = 13;
const IPVS_CMD_ATTR_TIMEOUT_TCP: u16 = 4;
/// `struct nlmsghdr` and `struct genlmsghdr`.
const HEADERS: usize = 20;

/// Asks for the number of the IPVS family. Only a kernel that has loaded it may be asked: another starts a `modprobe`.
#[must_use]
pub fn get_ipvs_family() -> Vec<u8> {
    let name = b"IPVS\0\0\0\0";
    // the attribute's length leaves its padding out
    let attribute = [&9_u16.to_ne_bytes()[..], &CTRL_ATTR_FAMILY_NAME.to_ne_bytes(), name].concat();
    message(GENL_ID_CTRL, CTRL_CMD_GETFAMILY, &attribute)
}

/// Asks IPVS for its timeouts.
#[must_use]
pub fn get_ipvs_timeouts(family: u16) -> Vec<u8> {
    message(family, IPVS_CMD_GET_CONFIG, &[])
}

/// The number of the family in an answer, or the errno with which it was refused.
pub fn ipvs_family(answer: &[u8]) -> Result<Option<u16>, i32> {
    let id = attribute(answer, CTRL_ATTR_FAMILY_ID)?;
    Ok(id.and_then(|value| value.first_chunk().map(|id| u16::from_ne_bytes(*id))))
}

/// The timeout of an established connection in an answer, seconds, or the errno with which it was refused.
pub fn ipvs_tcp_timeout(answer: &[u8]) -> Result<Option<u32>, i32> {
    let timeout = attribute(answer, IPVS_CMD_ATTR_TIMEOUT_TCP)?;
    Ok(timeout.and_then(|value| value.first_chunk().map(|seconds| u32::from_ne_bytes(*seconds))))
}

fn message(kind: u16, command: u8, attributes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADERS + attributes.len()).unwrap_or_default();
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(NLM_F_REQUEST.to_ne_bytes());
    bytes.extend([0; 8]); // nlmsg_seq, nlmsg_pid
    bytes.extend([command, 1, 0, 0]); // cmd, version, reserved
    bytes.extend(attributes);
    bytes
}

/// An attribute of the first message.
fn attribute(answer: &[u8], wanted: u16) -> Result<Option<&[u8]>, i32> {
    let word = |at: usize| answer.get(at..).and_then(<[u8]>::first_chunk).map(|word| u32::from_ne_bytes(*word));
    let kind = answer.get(4..).and_then(<[u8]>::first_chunk).map(|kind| u16::from_ne_bytes(*kind));
    if kind == Some(NLMSG_ERROR) {
        return Err(word(16).map_or(0, |errno| errno.cast_signed().saturating_neg()));
    }
    let end = word(0).map_or(0, |length| length as usize).min(answer.len());
    let attributes = answer.get(HEADERS..end).unwrap_or_default();
    Ok(Attributes(attributes).find(|&(kind, _)| kind == wanted).map(|(_, value)| value))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer of these attributes, 32 bits each.
    fn answer(attributes: &[(u16, u32)]) -> Vec<u8> {
        let attributes: Vec<u8> = attributes
            .iter()
            .flat_map(|(kind, value)| [&8_u16.to_ne_bytes()[..], &kind.to_ne_bytes(), &value.to_ne_bytes()].concat())
            .collect();
        message(25, 12, &attributes)
    }

    #[test]
    fn the_timeout_is_read_from_among_the_others() {
        let all = answer(&[(6, 300), (4, 900), (5, 120)]);
        assert_eq!(ipvs_tcp_timeout(&all), Ok(Some(900)));
        assert_eq!(ipvs_tcp_timeout(&answer(&[(5, 120)])), Ok(None));
        assert_eq!(ipvs_family(&answer(&[(1, 31)])), Ok(Some(31)));
        for length in 0..all.len() {
            assert!(ipvs_tcp_timeout(&all[..length]).is_ok_and(|timeout| timeout.is_none() || length >= 36));
        }
    }

    #[test]
    fn a_refusal_gives_its_errno() {
        let mut refused = message(NLMSG_ERROR, 0, &[]);
        refused[16..20].copy_from_slice(&(-1_i32).to_ne_bytes());
        assert_eq!(ipvs_tcp_timeout(&refused), Err(1));
    }

    #[test]
    fn the_name_of_the_family_is_one_attribute() {
        let request = get_ipvs_family();
        assert_eq!((request.len(), request[0], &request[24..28]), (32, 32, &b"IPVS"[..]));
    }
}

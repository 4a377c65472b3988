//! Makes every message readable to lapin, on its way from the broker.
//!
//! AMQP's short strings are UTF-8 to lapin and bytes to the broker. One message with a binary
//! `message_id` would end the consuming connection, come back and end the next one, for ever: no
//! other message would be sent. So what the broker says comes through here (`mended`), and each byte that
//! cannot be read becomes [`UNREADABLE`]. It is a control character, which no id may hold: such a
//! request is a dead letter, like any other malformed one.
//!
//! And lapin reads tables in tables by recursion, on a stack of 2 MiB. A frame has room for 26,000
//! of them, and what overflows a stack ends the process. So from [`NESTED_MAX`] on, a table becomes
//! a byte array, which stands on the wire just like one. Since no process lives to learn of that,
//! every consuming connection comes through here from its beginning.

/// ASCII's *substitute*.
const UNREADABLE: u8 = 0x1A;
/// Tables and arrays within one another, from which on the inner ones become byte arrays. Nobody
/// nests deeper: the broker's own `x-death` is a table in an array.
const NESTED_MAX: u8 = 16;
/// AMQP's type of bytes that mean nothing to it.
const BYTE_ARRAY: u8 = b'x';
/// The properties in the order of their flags, the highest bit first.
const PROPERTIES: [Property; 14] = {
    use Property::{Fixed, Table, Text};
    [
        Text,     // content_type
        Text,     // content_encoding
        Table,    // headers
        Fixed(1), // delivery_mode
        Fixed(1), // priority
        Text,     // correlation_id
        Text,     // reply_to
        Text,     // expiration
        Text,     // message_id
        Fixed(8), // timestamp
        Text,     // type
        Text,     // user_id
        Text,     // app_id
        Text,     // cluster_id
    ]
};

#[derive(Clone, Copy)]
enum Property {
    Text,
    Table,
    Fixed(usize),
}

/// Mends a content header: class, weight and body size, then flags, then properties. Tells whether
/// it is one: what is none is left to lapin to refuse.
pub(super) fn mend(payload: &mut [u8]) -> bool {
    let mut rest = Rest(payload);
    let Some(&mut [high, low]) = rest.take(12).and_then(|_| rest.take(2)) else {
        return false;
    };
    let flags = u16::from_be_bytes([high, low]);
    for (bit, property) in PROPERTIES.iter().enumerate() {
        if flags & (0x8000 >> bit) == 0 {
            continue;
        }
        let mended = match property {
            Property::Text => rest.mend_text(),
            Property::Table => rest.mend_table(0),
            Property::Fixed(bytes) => rest.take(*bytes).map(|_| ()),
        };
        if mended.is_none() {
            return false;
        }
    }
    true
}

/// The bytes that were not walked over yet.
struct Rest<'a>(&'a mut [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, count: usize) -> Option<&'a mut [u8]> {
        let (taken, rest) = std::mem::take(&mut self.0).split_at_mut_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn take_long(&mut self) -> Option<&'a mut [u8]> {
        let length: &[u8; 4] = (&*self.take(4)?).try_into().ok()?;
        self.take(u32::from_be_bytes(*length) as usize)
    }

    fn mend_text(&mut self) -> Option<()> {
        let length = *self.take(1)?.first()?;
        let text = self.take(length.into())?;
        while let Err(error) = std::str::from_utf8(text) {
            *text.get_mut(error.valid_up_to())? = UNREADABLE;
        }
        Some(())
    }

    /// A table's names are short strings too; its values are not.
    fn mend_table(&mut self, outer: u8) -> Option<()> {
        let mut entries = Rest(self.take_long()?);
        while !entries.0.is_empty() {
            entries.mend_text()?;
            entries.mend_value(outer)?;
        }
        Some(())
    }

    /// A value within so many `outer` tables and arrays of the headers.
    fn mend_value(&mut self, outer: u8) -> Option<()> {
        let kind = self.take(1)?.first_mut()?;
        if outer >= NESTED_MAX && matches!(kind, b'F' | b'A') {
            *kind = BYTE_ARRAY;
        }
        let bytes = match *kind {
            b'F' => return self.mend_table(outer + 1),
            b'A' => {
                let mut values = Rest(self.take_long()?);
                while !values.0.is_empty() {
                    values.mend_value(outer + 1)?;
                }
                return Some(());
            }
            b'S' | BYTE_ARRAY => return self.take_long().map(|_| ()),
            b'V' => 0,
            b't' | b'b' | b'B' => 1,
            b's' | b'u' | b'U' => 2,
            b'I' | b'i' | b'f' => 4,
            b'D' => 5,
            b'l' | b'L' | b'd' | b'T' => 8,
            _ => return None,
        };
        self.take(bytes).map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unreadable_id_and_header_name_are_replaced_in_place() {
        let mut header = vec![0; 12];
        // headers, delivery_mode, message_id
        header.extend((0x2000_u16 | 0x1000 | 0x0080).to_be_bytes());
        header.extend(9_u32.to_be_bytes());
        header.extend(b"\x03a\xffb");
        header.extend(b"s\x00\x07");
        header.extend(b"\x00V");
        header.push(2);
        header.extend(b"\x04\xf0\x28\x8c\x28");
        header.push(0xCE);
        let mut mended = header.clone();
        mend(&mut mended);
        assert_eq!(mended.len(), header.len());
        assert_eq!(&mended[18..22], b"\x03a\x1ab");
        assert_eq!(&mended[28..33], b"\x04\x1a(\x1a(");
    }

    #[test]
    fn what_is_no_content_header_is_left_alone() {
        for length in 0..40 {
            let mut noise = vec![0xff; length];
            mend(&mut noise);
            assert_eq!(noise, vec![0xff; length]);
        }
    }
}

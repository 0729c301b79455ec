//! The keeper's protocol: datagrams of the supervisor, and the table that one process leaves to the next.

use laneway::keeper::protocol::{MAX_NAME, MAX_ORDER, Order};
use laneway::keeper::table::entries;

/// Bytes before each order of a table.
const HEAD: usize = 5;

/// Any bytes are orders or not; an order that is read is the same when it is written and read again.
pub fn check_keeper(bytes: &[u8]) {
    check_order(bytes);
    let Some(table) = entries(bytes) else { return };
    let mut length = 0;
    for (_, order) in table {
        length += HEAD + order.len();
        check_order(order);
    }
    assert!(length <= bytes.len(), "more was read than is there");
}

fn check_order(bytes: &[u8]) {
    let Some(order) = Order::decode(bytes) else { return };
    if let Order::Log { name, .. } = order {
        assert!(name.len() <= MAX_NAME);
    }
    let mut buffer = [0; MAX_ORDER];
    let length = order.encode(&mut buffer).expect("what was read fits");
    assert_eq!(Order::decode(&buffer[..length]), Some(order));
}

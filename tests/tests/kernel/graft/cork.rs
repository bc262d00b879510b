//! Applications that hold back what they write (MSG_MORE, TCP_CORK) and then go on writing: nginx does it with every answer.

use testbed::{Deed, Form, Talker, blob, hex, require_privilege};

use super::Grafted;
use crate::common::Result;

const SIZE: usize = 1000;

#[track_caller]
fn expect_blob(got: &str, settings: &str) -> Result {
    let got = hex::decode(got)?;
    assert_eq!((got.len(), blob::mismatch(0, &got)), (SIZE, None), "{settings}");
    Ok(())
}

/// What is held back must not make the socket full: nothing would move until TCP's own timer sends it, 200 ms later.
#[test]
fn what_is_held_back_leaves_room_for_more() -> Result {
    require_privilege!(Ok(()));
    for settings in ["graft: always", "graft: never"] {
        let it = Grafted::with("graft-cork", settings, false)?;
        let (server, client) = (Talker::in_pod(&it.server_pod)?, Talker::in_pod(&it.scene.client)?);
        let listener = server.listen(it.at)?;
        let client = client.open(it.vip)?;
        // A write that finds no room is an error now, rather than a wait.
        client.to(Deed::Blocking(false))?;
        client.to(Deed::SendBlob(Form::More, SIZE))?;
        let server = server.accept(listener)?;
        expect_blob(&server.receive(SIZE)?.hex, settings)?;
        // The same the other way.
        server.to(Deed::Blocking(false))?;
        server.to(Deed::SendBlob(Form::More, SIZE))?;
        client.to(Deed::Blocking(true))?;
        expect_blob(&client.receive(SIZE)?.hex, settings)?;
    }
    Ok(())
}

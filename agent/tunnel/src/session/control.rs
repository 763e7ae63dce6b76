//! The frames that change a connection or end a stream: settings, pings, windows, resets, GOAWAY.

use std::time::Instant;

use super::outgoing::MOST_URGENT;
use super::stream::{FIRST_WINDOW, Head, Line};
use super::{Arrival, LEAVING_PING, Role, Session, SettingsState};
use crate::failure::{StreamFailure, TunnelFailure};
use crate::flood::Nuisance;
use crate::frame::{
    ACK, DEFAULT_FRAME, DEFAULT_WINDOW, ErrorCode, FrameHead, FrameKind, INITIAL_WINDOW_SIZE,
    LARGEST_WINDOW, MAX_CONCURRENT_STREAMS, MAX_FRAME_SIZE, StreamId, put_frame,
};

impl Session {
    pub(super) fn settings(
        &mut self,
        head: FrameHead,
        payload: &[u8],
    ) -> Result<(), TunnelFailure> {
        if head.stream != StreamId::CONNECTION {
            return Err(TunnelFailure::protocol("SETTINGS of a stream"));
        }
        if head.has(ACK) {
            if !payload.is_empty() {
                return Err(TunnelFailure::frame_size());
            }
            return self.settings_acknowledged();
        }
        if !payload.len().is_multiple_of(6) {
            return Err(TunnelFailure::frame_size());
        }
        if std::mem::replace(&mut self.reader.has_settings, true) {
            self.flood.charge(Nuisance::Settings, Instant::now())?;
        }
        for setting in payload.chunks_exact(6) {
            let name = u16::from_be_bytes([setting[0], setting[1]]);
            let value = u32::from_be_bytes([setting[2], setting[3], setting[4], setting[5]]);
            self.set(name, value)?;
        }
        Ok(self.outgoing.acknowledge_settings()?)
    }

    fn set(&mut self, name: u16, value: u32) -> Result<(), TunnelFailure> {
        match name {
            INITIAL_WINDOW_SIZE => {
                if value > LARGEST_WINDOW {
                    return Err(TunnelFailure::flow_control());
                }
                let change = i64::from(value) - i64::from(self.peer.initial_window);
                self.peer.initial_window = value;
                for stream in self.streams.values_mut() {
                    raise(&mut stream.sending.window, change)?;
                    if stream.sending.line == Line::Window && stream.sending.window > 0 {
                        stream.wake();
                    }
                }
            }
            MAX_FRAME_SIZE => {
                let value = value as usize;
                if !(DEFAULT_FRAME..1 << 24).contains(&value) {
                    return Err(TunnelFailure::protocol("a frame size that is not allowed"));
                }
                self.peer.largest_frame = value;
            }
            MAX_CONCURRENT_STREAMS => self.peer.most_streams = value as usize,
            _ => {}
        }
        Ok(())
    }

    fn settings_acknowledged(&mut self) -> Result<(), TunnelFailure> {
        if self.settings == SettingsState::Acknowledged {
            return Ok(self.flood.charge(Nuisance::Trifle, Instant::now())?);
        }
        self.settings = SettingsState::Acknowledged;
        if self.role == Role::Server {
            let excess = DEFAULT_WINDOW as usize - FIRST_WINDOW;
            for (id, stream) in &mut self.streams {
                stream.forget_default_window(excess);
                // What little was delivered may be all that the smaller window allows.
                self.touched.push(*id);
            }
        }
        Ok(())
    }

    pub(super) fn pinged(&mut self, head: FrameHead, payload: &[u8]) -> Result<(), TunnelFailure> {
        if head.stream != StreamId::CONNECTION {
            return Err(TunnelFailure::protocol("PING of a stream"));
        }
        if payload.len() != 8 {
            return Err(TunnelFailure::frame_size());
        }
        self.flood.charge(Nuisance::Trifle, Instant::now())?;
        if !head.has(ACK) {
            return self.put_pong(payload);
        }
        if payload == LEAVING_PING {
            self.left();
        }
        Ok(())
    }

    fn put_pong(&mut self, payload: &[u8]) -> Result<(), TunnelFailure> {
        if self.outgoing.urgent.len() > MOST_URGENT {
            return Err(TunnelFailure::Flooded);
        }
        let out = &mut self.outgoing.urgent;
        put_frame(out, FrameKind::Ping, ACK, StreamId::CONNECTION, payload);
        Ok(())
    }

    pub(super) fn window_update(
        &mut self,
        head: FrameHead,
        payload: &[u8],
    ) -> Result<(), TunnelFailure> {
        let increment = i64::from(u32_of(payload)? & LARGEST_WINDOW);
        self.flood.charge(Nuisance::Trifle, Instant::now())?;
        if head.stream == StreamId::CONNECTION {
            if increment == 0 {
                return Err(TunnelFailure::protocol("a window is raised by nothing"));
            }
            return raise(&mut self.window, increment);
        }
        self.ensure_not_idle(head.stream)?;
        let Some(stream) = self.streams.get_mut(&head.stream) else {
            return Ok(());
        };
        if increment == 0 {
            self.refuse_stream(head.stream, ErrorCode::PROTOCOL_ERROR);
            return Ok(());
        }
        if raise(&mut stream.sending.window, increment).is_err() {
            self.refuse_stream(head.stream, ErrorCode::FLOW_CONTROL_ERROR);
            return Ok(());
        }
        if stream.sending.line == Line::Window && stream.sending.window > 0 {
            stream.sending.line = Line::Free;
            if let Some(writer) = stream.sending.writer.take() {
                writer.wake();
            }
        }
        Ok(())
    }

    pub(super) fn reset_by_peer(
        &mut self,
        head: FrameHead,
        payload: &[u8],
    ) -> Result<(), TunnelFailure> {
        let code = ErrorCode(u32_of(payload)?);
        self.ensure_not_idle(head.stream)?;
        let Some(stream) = self.streams.get_mut(&head.stream) else {
            return Ok(self.flood.charge(Nuisance::Trifle, Instant::now())?);
        };
        let was_taken = !matches!(stream.head, Head::Untaken);
        let was_wasted = matches!(stream.head, Head::Untaken | Head::Taken);
        stream.fail(StreamFailure::Reset(code));
        if was_wasted {
            self.flood.charge(Nuisance::WastedStream, Instant::now())?;
        }
        if was_taken {
            self.touch(head.stream);
            return Ok(());
        }
        // It has no owner yet that would forget it.
        self.streams.remove(&head.stream);
        let is_other =
            |arrival: &Arrival| !matches!(arrival, Arrival::Request(id, _) if *id == head.stream);
        self.arrivals.retain(is_other);
        Ok(())
    }

    pub(super) fn go_away(&mut self, head: FrameHead, payload: &[u8]) -> Result<(), TunnelFailure> {
        if head.stream != StreamId::CONNECTION {
            return Err(TunnelFailure::protocol("GOAWAY of a stream"));
        }
        let (last, rest) = payload
            .split_at_checked(4)
            .ok_or(TunnelFailure::frame_size())?;
        let code = rest.get(..4).ok_or(TunnelFailure::frame_size())?;
        let (last, code) = (
            StreamId(u32_of(last)? & LARGEST_WINDOW),
            ErrorCode(u32_of(code)?),
        );
        self.flood.charge(Nuisance::Trifle, Instant::now())?;
        self.peer_leaves = true;
        if self.role == Role::Client {
            for (id, stream) in &mut self.streams {
                if *id > last {
                    stream.fail(StreamFailure::Reset(ErrorCode::REFUSED_STREAM));
                }
            }
        }
        if code != ErrorCode::NO_ERROR {
            return Err(TunnelFailure::GoneAway(code));
        }
        Ok(())
    }
}

fn u32_of(payload: &[u8]) -> Result<u32, TunnelFailure> {
    let bytes = payload
        .try_into()
        .map_err(|_| TunnelFailure::frame_size())?;
    Ok(u32::from_be_bytes(bytes))
}

fn raise(window: &mut i64, by: i64) -> Result<(), TunnelFailure> {
    *window += by;
    if *window > i64::from(LARGEST_WINDOW) {
        return Err(TunnelFailure::flow_control());
    }
    Ok(())
}

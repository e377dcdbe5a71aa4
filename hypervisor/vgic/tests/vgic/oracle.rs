// SPDX-License-Identifier: MIT OR Apache-2.0
//! A GIC as the architecture tells it, one record for each interrupt, no list registers.

/// One interrupt.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Irq {
    pub(crate) enabled: bool,
    pub(crate) pending: bool,
    pub(crate) line: bool,
    pub(crate) active: bool,
    pub(crate) edge: bool,
    pub(crate) group1: bool,
    pub(crate) priority: u8,
    pub(crate) route: Option<usize>,
}

pub(crate) struct Oracle {
    /// Private interrupts of each vCPU, then the SPIs.
    private: Vec<[Irq; 32]>,
    spi: Vec<Irq>,
    pub(crate) ctlr: u32,
    /// Priorities that are running on each vCPU.
    pub(crate) running: Vec<Vec<u8>>,
}

/// Registers with one bit for each interrupt, in the order of their offsets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Bits {
    Group,
    SetEnable,
    ClearEnable,
    SetPending,
    ClearPending,
    SetActive,
    ClearActive,
}

impl Bits {
    pub(crate) const ALL: [Self; 7] = [
        Self::Group,
        Self::SetEnable,
        Self::ClearEnable,
        Self::SetPending,
        Self::ClearPending,
        Self::SetActive,
        Self::ClearActive,
    ];

    pub(crate) fn offset(self, word: u32) -> u32 {
        let index = Self::ALL
            .iter()
            .position(|bits| *bits == self)
            .expect("listed") as u32;
        0x80 + index * 0x80 + word * 4
    }
}

impl Oracle {
    pub(crate) fn new(vcpus: usize) -> Self {
        let reset = Irq {
            enabled: false,
            pending: false,
            line: false,
            active: false,
            edge: false,
            group1: true,
            priority: 0,
            route: Some(0),
        };
        let mut private = [reset; 32];
        for irq in &mut private[..16] {
            irq.edge = true;
        }
        Self {
            private: vec![private; vcpus],
            spi: vec![reset; 128],
            ctlr: 0,
            running: vec![Vec::new(); vcpus],
        }
    }

    pub(crate) fn irq(&mut self, vcpu: usize, intid: u32) -> &mut Irq {
        if intid < 32 {
            &mut self.private[vcpu][intid as usize]
        } else {
            &mut self.spi[intid as usize - 32]
        }
    }

    pub(crate) fn write(&mut self, vcpu: usize, bits: Bits, word: u32, value: u32) {
        for lane in 0..32 {
            let set = value >> lane & 1 == 1;
            let irq = self.irq(vcpu, word * 32 + lane);
            match bits {
                Bits::Group => irq.group1 = set,
                _ if !set => {}
                Bits::SetEnable => irq.enabled = true,
                Bits::ClearEnable => irq.enabled = false,
                Bits::SetPending => irq.pending = true,
                Bits::ClearPending => irq.pending = false,
                Bits::SetActive => irq.active = true,
                Bits::ClearActive => irq.active = false,
            }
        }
    }

    pub(crate) fn read(&mut self, vcpu: usize, bits: Bits, word: u32) -> u32 {
        (0..32).fold(0, |value, lane| {
            let irq = self.irq(vcpu, word * 32 + lane);
            let set = match bits {
                Bits::Group => irq.group1,
                Bits::SetEnable | Bits::ClearEnable => irq.enabled,
                Bits::SetPending | Bits::ClearPending => irq.pending || irq.line && !irq.edge,
                Bits::SetActive | Bits::ClearActive => irq.active,
            };
            value | u32::from(set) << lane
        })
    }

    pub(crate) fn level(&mut self, vcpu: usize, intid: u32, high: bool) {
        let irq = self.irq(vcpu, intid);
        irq.pending |= irq.edge && high && !irq.line;
        irq.line = high;
    }

    /// Priorities of all that may be delivered to a vCPU, by INTID.
    pub(crate) fn deliverable(&mut self, vcpu: usize) -> Vec<(u32, u8)> {
        let ctlr = self.ctlr;
        (0..160)
            .filter_map(|intid| {
                let irq = *self.irq(vcpu, intid);
                let forwarded = if irq.group1 {
                    ctlr & 2 != 0
                } else {
                    ctlr & 1 != 0
                };
                let raised = irq.pending || irq.line && !irq.edge;
                let here = intid < 32 || irq.route == Some(vcpu);
                (forwarded && irq.enabled && raised && !irq.active && here)
                    .then_some((intid, irq.priority))
            })
            .collect()
    }

    /// Priority of the best deliverable interrupt that may preempt, if any.
    pub(crate) fn best(&mut self, vcpu: usize) -> Option<u8> {
        let running = self.running[vcpu]
            .iter()
            .copied()
            .min()
            .map_or(256, u16::from);
        let best = self
            .deliverable(vcpu)
            .into_iter()
            .map(|(_, priority)| priority)
            .min()?;
        (u16::from(best) < running).then_some(best)
    }

    /// The guest acknowledged `intid`: it must have been the best.
    pub(crate) fn ack(&mut self, vcpu: usize, intid: Option<u32>) {
        let best = self.best(vcpu);
        let Some(intid) = intid else {
            assert_eq!(
                best,
                None,
                "vCPU {vcpu} got nothing: {:?}",
                self.deliverable(vcpu)
            );
            return;
        };
        let known = self
            .deliverable(vcpu)
            .into_iter()
            .find(|(candidate, _)| *candidate == intid);
        assert!(
            known.is_some_and(|(_, priority)| Some(priority) == best),
            "vCPU {vcpu} got INTID {intid} ({known:?}), the best has {best:?}"
        );
        self.force_ack(vcpu, intid, best.expect("known"));
    }

    /// The guest acknowledged `intid` at `priority`, whatever the order.
    pub(crate) fn force_ack(&mut self, vcpu: usize, intid: u32, priority: u8) {
        let irq = self.irq(vcpu, intid);
        irq.active = true;
        irq.pending = false;
        self.running[vcpu].push(priority);
    }

    /// Drops the running priority.
    pub(crate) fn drop_priority(&mut self, vcpu: usize) {
        let running = &mut self.running[vcpu];
        let best = running
            .iter()
            .enumerate()
            .min_by_key(|(_, priority)| **priority);
        let index = best
            .map(|(index, _)| index)
            .expect("an acknowledged interrupt");
        running.remove(index);
    }
}

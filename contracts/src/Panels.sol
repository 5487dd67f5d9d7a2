// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Ledger} from "./Ledger.sol";
import {IPanels} from "./interfaces/IAudits.sol";
import {Account, Role} from "./libraries/Accounts.sol";
import {Bits} from "./libraries/Bits.sol";
import {Draw, Purpose} from "./libraries/Draw.sol";
import {Job} from "./libraries/Jobs.sol";
import {Lease, LeaseStatus} from "./libraries/Leases.sol";

/// @notice Decides by a vote of drawn tickets what no contract can see: whether a blob can be fetched.
abstract contract Panels is IPanels, Ledger {
    /// @notice A panel: one member for each ticket drawn, so an operator may stand in it more than once.
    struct Panel {
        uint32[7] members; // operators
        uint8 size;
        uint8 voted; // bit k: member k
        uint8 missing; // bit k: member k could not fetch everything
    }

    uint256 private constant PANEL_TRIES = 64;
    uint256 private constant PANEL_SIZE = 7;
    uint256 private constant PANEL_QUORUM = 5; // of seven, to burn a stake

    mapping(uint256 leaseId => Panel) private _panels;

    /// @inheritdoc IPanels
    function report(uint256 leaseId) external {
        Lease storage lease = _requireLease(leaseId, LeaseStatus.Drawn);
        _requireAuditor(leaseId, lease);
        uint256 deadline = lease.enter(LeaseStatus.Reported, _now(), GRACE_TIME);
        emit WithholdingReported(leaseId, lease.auditor, deadline);
    }

    /// @inheritdoc IPanels
    function convene(uint256 leaseId) external {
        Lease storage lease = _leases[leaseId];
        LeaseStatus current = lease.status(_now());
        if (current != LeaseStatus.Withheld && current != LeaseStatus.Unconvened) {
            revert LeaseCannotConvene(leaseId, current);
        }
        // Drawn only now, so that nobody could know the panel when the provider chose not to publish again.
        uint256 drawBlock = block.number + DRAW_DISTANCE;
        lease.await(LeaseStatus.Convened, drawBlock);
        emit PanelConvened(leaseId, drawBlock);
    }

    /// @inheritdoc IPanels
    function drawPanel(uint256 leaseId, bytes calldata header) external {
        Lease storage lease = _requireLease(leaseId, LeaseStatus.Convened);
        bytes32 seed = Draw.entropy(Purpose.Panel, leaseId, Draw.readMixHash(header, lease.clock));
        uint32[] memory members = _findMembers(leaseId, lease, seed);
        if (members.length == 0) return _reject(leaseId, lease, 0);

        Panel storage panel = _panels[leaseId];
        (panel.size, panel.voted, panel.missing) = (uint8(members.length), 0, 0);
        Job storage job = _jobOf(leaseId);
        uint256 fee = _seatFee(lease, job);
        for (uint256 k = 0; k < members.length; ++k) {
            panel.members[k] = members[k];
            _seat(members[k], job).lock(fee);
        }
        uint256 deadline = lease.enter(LeaseStatus.Voting, _now(), VOTE_TIME);
        emit PanelDrawn(leaseId, members, deadline);
    }

    /// @inheritdoc IPanels
    function vote(uint256 leaseId, uint256 operator, bool available) external {
        _requireLease(leaseId, LeaseStatus.Voting);
        _requireWorker(operator);
        Panel storage panel = _panels[leaseId];
        uint256 seats = 0;
        for (uint256 k = 0; k < panel.size; ++k) {
            if (panel.members[k] == operator) seats |= 1 << k;
        }
        if (seats == 0) revert PanelNotMember(leaseId, operator);
        if (panel.voted & seats != 0) revert PanelVotedAlready(leaseId, operator);

        panel.voted |= uint8(seats);
        if (!available) panel.missing |= uint8(seats);
        emit PanelVoted(leaseId, operator, available, Bits.count(seats));
    }

    /// @inheritdoc IPanels
    function closeVote(uint256 leaseId) external {
        Lease storage lease = _requireLease(leaseId, LeaseStatus.Voted);
        Job storage job = _jobOf(leaseId);
        Panel storage panel = _panels[leaseId];
        // Five of seven; of a smaller panel, the same share, rounded up.
        uint256 needed = (PANEL_QUORUM * panel.size + PANEL_SIZE - 1) / PANEL_SIZE;
        bool withheld = Bits.count(panel.missing) >= needed;
        // Nobody is disbelieved by a panel that is silent.
        bool pays = !withheld && panel.voted != 0;
        uint256 pot = pays ? _share(_stakeOf(lease, job), SILENCE_FEE_BPS) : 0;
        _releasePanel(lease, job, panel, pot);
        if (!withheld) return _reject(leaseId, lease, pot);
        _dismissAuditor(leaseId, lease, 0);
        _burnStake(leaseId, lease, LeaseStatus.Voted);
    }

    /// @inheritdoc IPanels
    function getPanel(uint256 leaseId)
        external
        view
        returns (uint32[] memory members, uint256 voted, uint256 missing)
    {
        Panel storage panel = _panels[leaseId];
        members = new uint32[](panel.size);
        for (uint256 k = 0; k < members.length; ++k) {
            members[k] = panel.members[k];
        }
        return (members, panel.voted, panel.missing);
    }

    /// @notice The reporter was not believed: it loses `loss`, and another auditor gets the same segments.
    function _reject(uint256 leaseId, Lease storage lease, uint256 loss) private {
        uint256 auditor = _dismissAuditor(leaseId, lease, loss);
        lease.silences = 0;
        emit ReportRejected(leaseId, auditor, loss);
        _redraw(leaseId, lease);
    }

    /// @notice Unlock every seat. Those that are silent lose their fee, which with `pot` goes to those that voted.
    function _releasePanel(Lease storage lease, Job storage job, Panel storage panel, uint256 pot) private {
        uint256 fee = _seatFee(lease, job);
        uint256 size = panel.size;
        uint256 voted = panel.voted;
        uint256 voters = Bits.count(voted);
        pot += fee * (size - voters);
        // slither-disable-next-line divide-before-multiply
        uint256 part = voters == 0 ? 0 : pot / voters; // what does not divide is burned
        for (uint256 k = 0; k < size; ++k) {
            Account storage account = _seat(panel.members[k], job);
            bool spoke = (voted >> k) & 1 == 1;
            account.unlock(fee, spoke ? 0 : fee);
            if (spoke) account.earn(part);
        }
        _forfeit(job.asset, pot - part * voters);
    }

    /// @notice What a panelist locks for each of its seats, and loses by silence.
    function _seatFee(Lease storage lease, Job storage job) private view returns (uint256) {
        return _share(_stakeOf(lease, job), SILENCE_FEE_BPS) / PANEL_SIZE;
    }

    function _seat(uint256 operator, Job storage job) private view returns (Account storage) {
        return _account(operator, Role.Auditor, job.asset);
    }

    /// @notice Up to seven different tickets, neither the provider's nor the reporter's, with stake for a seat each.
    function _findMembers(uint256 leaseId, Lease storage lease, bytes32 seed)
        private
        view
        returns (uint32[] memory members)
    {
        Job storage job = _jobOf(leaseId);
        uint256 needed = PANEL_SIZE * _seatFee(lease, job); // enough, should all seats be one operator's
        uint256[] memory ids = new uint256[](PANEL_SIZE);
        members = new uint32[](PANEL_SIZE);
        uint256 size = 0;
        uint256 tickets = lease.tickets;
        for (uint256 k = 0; k < PANEL_TRIES && size < PANEL_SIZE && tickets > 0; ++k) {
            uint256 ticketId = Draw.number(seed, k) % tickets;
            uint256 operator = _eligible(lease, job.asset, needed, ticketId);
            if (operator == 0 || operator == lease.auditor || Draw.contains(ids, size, ticketId)) continue;
            (ids[size], members[size]) = (ticketId, uint32(operator));
            ++size;
        }
        assembly ("memory-safe") {
            mstore(members, size) // drop the seats that stay empty
        }
    }
}

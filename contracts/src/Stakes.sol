// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Deployment} from "./Deployment.sol";
import {IStakes} from "./interfaces/IStakes.sol";
import {Account} from "./libraries/Accounts.sol";

/// @notice Keeps the money that is not escrowed: stakes, tickets and credits.
abstract contract Stakes is IStakes, Deployment {
    /// @notice One unit of an auditor's stake: what a draw picks.
    struct Ticket {
        address owner;
        bool leaving;
    }

    /// @inheritdoc IStakes
    mapping(address account => uint256) public creditOf;

    mapping(address provider => Account) internal _providers;
    mapping(address auditor => Account) internal _auditors;
    Ticket[] internal _tickets; // append-only, so that a draw's candidates cannot move

    /// @inheritdoc IStakes
    function stake() external payable {
        _providers[msg.sender].deposit(msg.value);
        emit StakeAdded(msg.sender, msg.value);
    }

    /// @inheritdoc IStakes
    function unstake(uint256 amount) external {
        _providers[msg.sender].take(amount);
        creditOf[msg.sender] += amount;
        emit StakeRemoved(msg.sender, amount);
    }

    /// @inheritdoc IStakes
    function buyTickets(uint256 count) external payable {
        uint256 required = count * TICKET_STAKE;
        if (msg.value != required) revert StakesWrongPayment(msg.value, required);

        uint256 firstTicketId = _tickets.length;
        for (uint256 i = 0; i < count; ++i) {
            _tickets.push(Ticket({owner: msg.sender, leaving: false}));
        }
        _auditors[msg.sender].deposit(msg.value);
        emit TicketsBought(msg.sender, firstTicketId, count);
    }

    /// @inheritdoc IStakes
    function retireTicket(uint256 ticketId) external {
        Ticket storage ticket = _tickets[ticketId];
        if (ticket.owner != msg.sender) revert StakesNotTicketOwner(ticketId, ticket.owner, msg.sender);
        if (ticket.leaving) revert StakesTicketLeaving(ticketId);

        ticket.leaving = true;
        _auditors[msg.sender].take(TICKET_STAKE);
        creditOf[msg.sender] += TICKET_STAKE;
        emit TicketRetired(ticketId, msg.sender);
    }

    /// @inheritdoc IStakes
    function withdraw() external {
        uint256 amount = creditOf[msg.sender];
        if (amount == 0) revert StakesNoCredit(msg.sender);

        creditOf[msg.sender] = 0;
        emit CreditWithdrawn(msg.sender, amount);
        _send(msg.sender, amount);
    }

    /// @inheritdoc IStakes
    function providerStake(address provider) external view returns (uint256 staked, uint256 locked) {
        Account storage account = _providers[provider];
        return (account.staked, account.locked);
    }

    /// @inheritdoc IStakes
    function auditorStake(address auditor) external view returns (uint256 staked, uint256 locked) {
        Account storage account = _auditors[auditor];
        return (account.staked, account.locked);
    }

    /// @inheritdoc IStakes
    function ticketCount() external view returns (uint256) {
        return _tickets.length;
    }

    /// @inheritdoc IStakes
    function getTicket(uint256 ticketId) external view returns (address owner, bool leaving) {
        Ticket storage ticket = _tickets[ticketId];
        return (ticket.owner, ticket.leaving);
    }

    /// @notice Destroy `amount`, so that no fee or slashed stake enriches anybody. The last thing a function does.
    function _burn(uint256 amount) internal {
        if (amount > 0) _send(address(0), amount);
    }

    function _send(address account, uint256 amount) private {
        (bool sent,) = account.call{value: amount}("");
        if (!sent) revert StakesPaymentFailed(account, amount);
    }
}

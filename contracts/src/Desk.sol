// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Permit.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";
import {Operators} from "./Operators.sol";
import {IAssets} from "./interfaces/IAssets.sol";
import {Asset} from "./interfaces/IDeployment.sol";
import {IOperators} from "./interfaces/IOperators.sol";
import {Account, Role} from "./libraries/Accounts.sol";

/// @notice Where operators register, stake, buy tickets and are paid, and anyone withdraws a credit.
abstract contract Desk is IAssets, IOperators, Operators {
    using SafeCast for uint256;

    address private constant GRAVE = address(0xdead); // where burned tokens go; many refuse address zero

    // Money

    /// @inheritdoc IAssets
    function permit(
        uint256 asset,
        address owner,
        uint256 amount,
        uint256 deadline,
        uint8 v,
        bytes32 r,
        bytes32 s
    ) external nonReentrant {
        address token = _getAsset(asset).token;
        try IERC20Permit(token).permit(owner, address(this), amount, deadline, v, r, s) {} catch {}
    }

    /// @inheritdoc IAssets
    function withdraw(uint256 asset, address to) external {
        uint256 amount = _credit[msg.sender][asset];
        if (amount == 0) revert AssetNoCredit(msg.sender, asset);

        _credit[msg.sender][asset] = 0;
        emit CreditWithdrawn(msg.sender, asset, amount);
        _pay(asset, to, amount);
    }

    /// @inheritdoc IAssets
    function burn(uint256 asset) external {
        uint256 amount = _burnable[asset];
        if (amount == 0) revert AssetNothingToBurn(asset);

        _burnable[asset] = 0;
        emit Burned(asset, amount);
        _pay(asset, GRAVE, amount);
    }

    /// @inheritdoc IAssets
    function creditOf(address account, uint256 asset) external view returns (uint256) {
        return _credit[account][asset];
    }

    /// @inheritdoc IAssets
    function burnable(uint256 asset) external view returns (uint256) {
        return _burnable[asset];
    }

    /// @inheritdoc IAssets
    function assetCount() external view returns (uint256) {
        return _assets.length;
    }

    /// @inheritdoc IAssets
    function getAsset(uint256 asset) external view returns (Asset memory) {
        return _getAsset(asset);
    }

    // Operators

    /// @inheritdoc IOperators
    function register(address payout) external returns (uint256 operator) {
        operator = ++_operatorCount;
        _operators[operator].owner = msg.sender;
        emit OperatorRegistered(operator, msg.sender, payout);
        _setPayout(operator, payout);
        _setWorker(operator, msg.sender, true);
    }

    /// @inheritdoc IOperators
    function setWorker(uint256 operator, address worker, bool authorized) external {
        _requireOwner(operator);
        _setWorker(operator, worker, authorized);
    }

    /// @inheritdoc IOperators
    function setPayout(uint256 operator, address payout) external {
        _requireOwner(operator);
        _setPayout(operator, payout);
    }

    /// @inheritdoc IOperators
    function proposeOwner(uint256 operator, address owner) external {
        _requireOwner(operator);
        _operators[operator].proposed = owner;
        emit OwnerProposed(operator, owner);
    }

    /// @inheritdoc IOperators
    function acceptOwner(uint256 operator) external {
        Operator storage self = _operators[operator];
        if (self.proposed != msg.sender) revert OperatorNotOwner(operator, self.proposed, msg.sender);
        self.owner = msg.sender;
        self.proposed = address(0);
        emit OwnerChanged(operator, msg.sender);
    }

    /// @inheritdoc IOperators
    function stake(uint256 operator, uint256 asset, uint256 amount) external payable {
        if (amount == 0) revert OperatorZeroAmount();
        _requireRegistered(operator);
        _account(operator, Role.Provider, asset).deposit(amount);
        emit StakeAdded(operator, Role.Provider, asset, amount);
        _receive(asset, amount);
    }

    /// @inheritdoc IOperators
    function buyTickets(uint256 operator, uint256 asset, uint256 count) external payable {
        if (count == 0) revert OperatorZeroAmount();
        _requireRunning();
        _requireRegistered(operator);
        uint256 amount = count * _getAsset(asset).ticketStake;
        Ticket[] storage tickets = _tickets[asset];
        uint256 firstTicketId = tickets.length;
        for (uint256 i = 0; i < count; ++i) {
            tickets.push(Ticket({operator: operator.toUint32(), leaving: false}));
        }
        _account(operator, Role.Auditor, asset).deposit(amount);
        emit TicketsBought(operator, asset, firstTicketId, count);
        _receive(asset, amount);
    }

    /// @inheritdoc IOperators
    function retireTicket(uint256 operator, uint256 asset, uint256 ticketId) external {
        _requireOwner(operator);
        Ticket storage ticket = _tickets[asset][ticketId];
        if (ticket.operator != operator) revert TicketNotOwned(ticketId, ticket.operator, operator);
        if (ticket.leaving) revert TicketLeaving(ticketId);

        ticket.leaving = true;
        emit TicketRetired(operator, asset, ticketId);
        // What slashing took of a ticket's stake cannot thaw.
        Account storage account = _account(operator, Role.Auditor, asset);
        uint256 left = account.staked - account.thawing;
        _thaw(operator, Role.Auditor, asset, Math.min(left, _getAsset(asset).ticketStake));
    }

    /// @inheritdoc IOperators
    function thaw(uint256 operator, uint256 asset, uint256 amount) external {
        if (amount == 0) revert OperatorZeroAmount();
        _requireOwner(operator);
        _thaw(operator, Role.Provider, asset, amount);
    }

    /// @inheritdoc IOperators
    function withdrawStake(uint256 operator, Role role, uint256 asset) external {
        _requireOwner(operator);
        Account storage account = _account(operator, role, asset);
        if (!account.leaving) revert OperatorNothingThawing(operator);
        uint256 present = _now();
        if (present <= account.thawedAt) {
            revert OperatorStakeThawing(operator, account.thawedAt, present);
        }

        uint256 amount = account.takeThawed();
        emit StakeWithdrawn(operator, role, asset, amount);
        _pay(asset, msg.sender, amount);
    }

    /// @inheritdoc IOperators
    function payOut(uint256 operator, Role role, uint256 asset) external {
        Account storage account = _account(operator, role, asset);
        uint256 amount = account.earned;
        if (amount == 0) revert OperatorNothingEarned(operator);
        address payout = _operators[operator].payout;

        account.earned = 0;
        emit EarningsPaid(operator, role, asset, amount, payout);
        _pay(asset, payout, amount);
    }

    /// @inheritdoc IOperators
    function getOperator(uint256 operator) external view returns (address owner, address payout) {
        Operator storage self = _operators[operator];
        return (self.owner, self.payout);
    }

    /// @inheritdoc IOperators
    function getAccount(uint256 operator, Role role, uint256 asset) external view returns (Account memory) {
        return _account(operator, role, asset);
    }

    /// @inheritdoc IOperators
    function operatorCount() external view returns (uint256) {
        return _operatorCount;
    }

    /// @inheritdoc IOperators
    function ticketCount(uint256 asset) external view returns (uint256) {
        return _tickets[asset].length;
    }

    /// @inheritdoc IOperators
    function getTicket(uint256 asset, uint256 ticketId)
        external
        view
        returns (uint256 operator, bool leaving)
    {
        Ticket storage ticket = _tickets[asset][ticketId];
        return (ticket.operator, ticket.leaving);
    }

    /// @inheritdoc IOperators
    function isWorker(uint256 operator, address worker) external view returns (bool) {
        return _isWorker(operator, worker);
    }

    function _requireOwner(uint256 operator) private view {
        address owner = _operators[operator].owner;
        if (owner != msg.sender) revert OperatorNotOwner(operator, owner, msg.sender);
    }

    function _requireRegistered(uint256 operator) private view {
        if (_operators[operator].owner == address(0)) revert OperatorUnknown(operator);
    }

    function _setWorker(uint256 operator, address worker, bool authorized) private {
        _workers[operator][worker] = authorized;
        emit WorkerChanged(operator, worker, authorized);
    }

    function _setPayout(uint256 operator, address payout) private {
        if (payout == address(0)) revert OperatorNeedsPayout();
        _operators[operator].payout = payout;
        emit PayoutChanged(operator, payout);
    }

    function _thaw(uint256 operator, Role role, uint256 asset, uint256 amount) private {
        uint256 until = _now() + THAW_TIME;
        _account(operator, role, asset).thaw(amount, until);
        emit StakeThawing(operator, role, asset, amount, until);
    }
}
